// fff to 1: 0 = count, 1 = positions, 2 = heads, 3 = d_head, 4 = half, 5 = adjacent, 6 = angles per item, 7 =
// sign; r1 = cos, r2 = sin.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * nwg.x + wid.x) * 256u + lid;
    if (i < u(0u)) {
        let half = u(4u);
        let c = i % u(3u);
        let token = i / (u(3u) * u(2u));
        let row = select(token % u(1u), token, u(6u) == 1u) * half;
        var v = r0[i];
        if (c < 2u * half) {
            var pair = c % half;
            var first = c < half;
            var other = select(i - half, i + half, first);
            if (u(5u) == 1u) {
                pair = c / 2u;
                first = c % 2u == 0u;
                other = select(i - 1u, i + 1u, first);
            }
            let sine = f(7u) * r2[row + pair];
            v = v * r1[row + pair] + select(r0[other] * sine, -r0[other] * sine, first);
        }
        w0[i] = v;
    }
}
