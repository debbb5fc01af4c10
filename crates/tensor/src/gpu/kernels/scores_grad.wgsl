// fff to 1 with scores: the gradient of q . k, from that of the scores, r0: 0 = queries, 1 = count, 3 =
// heads; r1 = q . k where scores are capped, r2 = key mask.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let at = (wid.y * nwg.x + wid.x) * 256u + lid;
    if (at < u(1u)) {
        let j = at % u(2u);
        let i = at / u(2u) % u(0u);
        let batch = at / (u(2u) * u(0u) * u(3u));
        var d = r0[at] / f(25u);
        if ((u(22u) & 4u) != 0u) {
            let t = tanh_(r1[at] / f(25u) / f(26u));
            d = d * (1.0 - t * t);
        }
        var shown = 1.0;
        if ((u(22u) & 16u) != 0u) {
            shown = r2[batch * u(2u) + j];
        }
        w0[at] = select(0.0, d, visible(i, j, shown));
    }
}
