// fff to 1 with scores: the gradient of q . k, from that of the scores, r0; r1 = q . k where scores are capped,
// r2 = key mask.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let at = (wid.y * nwg.x + wid.x) * 256u + lid;
    if (at < count()) {
        let j = at % keys();
        let i = at / keys() % queries();
        let batch = at / (keys() * queries() * heads());
        var d = r0[at] / scale();
        if (has_soft_cap()) {
            let t = tanh_(r1[at] / scale() / soft_cap());
            d = d * (1.0 - t * t);
        }
        var shown = 1.0;
        if (has_key_mask()) {
            shown = r2[batch * keys() + j];
        }
        w0[at] = select(0.0, d, visible(i, j, shown));
    }
}
