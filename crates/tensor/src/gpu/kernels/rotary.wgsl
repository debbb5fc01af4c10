// fff to 1: rotates pairs of coordinates; r1 = cos, r2 = sin.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * nwg.x + wid.x) * 256u + lid;
    if (i < count()) {
        let c = i % d_head();
        let token = i / (d_head() * heads());
        let row = select(token % positions(), token, per_item()) * pairs();
        var v = r0[i];
        if (c < 2u * pairs()) {
            var pair = c % pairs();
            var first = c < pairs();
            var other = select(i - pairs(), i + pairs(), first);
            if (interleaved()) {
                pair = c / 2u;
                first = c % 2u == 0u;
                other = select(i - 1u, i + 1u, first);
            }
            let sine = select(r2[row + pair], -r2[row + pair], inverse());
            v = v * r1[row + pair] + select(r0[other] * sine, -r0[other] * sine, first);
        }
        w0[i] = v;
    }
}
