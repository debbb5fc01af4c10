// ff to 3: a step of AdamW on w0 = parameter; w1 and w2 = its moments, r0 = gradient, r1 = its factor, which
// changes nothing if it is not finite.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * nwg.x + wid.x) * 256u + lid;
    if (i < count() && !not_finite(r1[0])) {
        let g = r0[i] * r1[0];
        let m = w1[i] + one_minus_beta1() * (g - w1[i]);
        let v = w2[i] * beta2() + one_minus_beta2() * g * g;
        w1[i] = m;
        w2[i] = v;
        w0[i] = w0[i] * keep() - step_size() * (m / (sqrt(v) / correction2_root() + eps()));
    }
}
