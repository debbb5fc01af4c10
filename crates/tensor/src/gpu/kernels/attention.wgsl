// SHARED
// Sizes of every kernel here: 0 = batch, 1 = heads, 2 = kv heads, 3 = queries, 4 = keys, 5 = d_head,
// 6 = flags, 7 = first query, 8 = window, 9 = scale, 10 = soft cap. Flags: 1 causal, 2 window, 4 soft
// cap, 8 alibi, 16 key mask. r2 = slopes, r3 = key mask [batch, key], where there are any.

struct Place { b: u32, h: u32, i: u32, j: u32 }

fn score_place(at: u32) -> Place {
    let keys = u(4u);
    let queries = u(3u);
    return Place(at / (keys * queries * u(1u)), at / (keys * queries) % u(1u), at / keys % queries, at % keys);
}

fn product(b: u32, h: u32, i: u32, j: u32) -> f32 {
    let e = u(5u);
    let kv = h / (u(1u) / u(2u));
    let q_at = ((b * u(3u) + i) * u(1u) + h) * e;
    let k_at = ((b * u(4u) + j) * u(2u) + kv) * e;
    var dot = 0.0;
    for (var c = 0u; c < e; c++) {
        dot = fma(r0[q_at + c], r1[k_at + c], dot);
    }
    return dot;
}
// KERNEL scores ffff 1
fn visible(p: Place) -> bool {
    let i = p.i + u(7u);
    let late = (u(6u) & 1u) != 0u && p.j > i;
    let far = (u(6u) & 2u) != 0u && p.j + u(8u) <= i;
    let padding = (u(6u) & 16u) != 0u && r3[p.b * u(4u) + p.j] == 0.0;
    return !(late || far || padding);
}
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let at = (wid.y * nwg.x + wid.x) * 256u + lid;
    if (at < u(0u) * u(1u) * u(3u) * u(4u)) {
        let p = score_place(at);
        var s = product(p.b, p.h, p.i, p.j) / f(9u);
        if ((u(6u) & 4u) != 0u) {
            s = f(10u) * tanh_(s / f(10u));
        }
        if ((u(6u) & 8u) != 0u) {
            s += r2[p.h] * min(f32(p.j) - f32(p.i + u(7u)), 0.0);
        }
        w0[at] = select(hidden_score(), s, visible(p));
    }
}
// KERNEL dproduct fffff 1: the gradient of q . k, from that of the scores, r4.
fn visible(p: Place) -> bool {
    let i = p.i + u(7u);
    let late = (u(6u) & 1u) != 0u && p.j > i;
    let far = (u(6u) & 2u) != 0u && p.j + u(8u) <= i;
    let padding = (u(6u) & 16u) != 0u && r3[p.b * u(4u) + p.j] == 0.0;
    return !(late || far || padding);
}
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let at = (wid.y * nwg.x + wid.x) * 256u + lid;
    if (at < u(0u) * u(1u) * u(3u) * u(4u)) {
        let p = score_place(at);
        var d = r4[at] / f(9u);
        if ((u(6u) & 4u) != 0u) {
            let t = tanh_(product(p.b, p.h, p.i, p.j) / f(9u) / f(10u));
            d = d * (1.0 - t * t);
        }
        w0[at] = select(0.0, d, visible(p));
    }
}
// KERNEL mix ff 1: z [batch, query, head, d] = pattern r0 over values r1.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let at = (wid.y * nwg.x + wid.x) * 256u + lid;
    let e = u(5u);
    if (at < u(0u) * u(3u) * u(1u) * e) {
        let c = at % e;
        let h = at / e % u(1u);
        let i = at / (e * u(1u)) % u(3u);
        let b = at / (e * u(1u) * u(3u));
        let kv = h / (u(1u) / u(2u));
        let p_at = ((b * u(1u) + h) * u(3u) + i) * u(4u);
        var z = 0.0;
        for (var j = 0u; j < u(4u); j++) {
            z = fma(r0[p_at + j], r1[((b * u(4u) + j) * u(2u) + kv) * e + c], z);
        }
        w0[at] = z;
    }
}
// KERNEL mix_back ff 1: [batch, key, kv head, d] = sum over queries and the group's heads of r0 [batch, head, query, key] times r1 [batch, query, head, d].
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let at = (wid.y * nwg.x + wid.x) * 256u + lid;
    let e = u(5u);
    if (at < u(0u) * u(4u) * u(2u) * e) {
        let c = at % e;
        let kv = at / e % u(2u);
        let j = at / (e * u(2u)) % u(4u);
        let b = at / (e * u(2u) * u(4u));
        let group = u(1u) / u(2u);
        var sum = 0.0;
        for (var g = 0u; g < group; g++) {
            let h = kv * group + g;
            for (var i = 0u; i < u(3u); i++) {
                sum = fma(r0[((b * u(1u) + h) * u(3u) + i) * u(4u) + j], r1[((b * u(3u) + i) * u(1u) + h) * e + c], sum);
            }
        }
        w0[at] = sum;
    }
}
// KERNEL dpattern ff 1: [batch, head, query, key] = dz r0 . v r1.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let at = (wid.y * nwg.x + wid.x) * 256u + lid;
    if (at < u(0u) * u(1u) * u(3u) * u(4u)) {
        let p = score_place(at);
        w0[at] = product(p.b, p.h, p.i, p.j);
    }
}
