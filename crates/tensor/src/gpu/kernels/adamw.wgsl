// ff to 3: a step on w0 = parameter, w1, w2 = moments, r0 = gradient, r1 = its factor; 0 = count, 2 = 1 -
// beta1, 3 = beta2, 4 = 1 - beta2, 5 = root, 6 = eps, 7 = keep, 8 = size.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * nwg.x + wid.x) * 256u + lid;
    if (i < u(0u)) {
        let g = r0[i] * r1[0];
        let m = w1[i] + f(2u) * (g - w1[i]);
        let v = w2[i] * f(3u) + f(4u) * g * g;
        w1[i] = m;
        w2[i] = v;
        w0[i] = w0[i] * f(7u) - f(8u) * (m / (sqrt(v) / f(5u) + f(6u)));
    }
}
