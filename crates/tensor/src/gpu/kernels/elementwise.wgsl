// KERNEL copy f 1: gathers a strided view; 0 = count, 1 = offset, 8.. = shape, 16.. = strides.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * nwg.x + wid.x) * 256u + lid;
    if (i < u(0u)) {
        w0[i] = r0[u(1u) + strided(i, 8u, 16u)];
    }
}
// KERNEL assign f 1: writes a strided region; 0 = count, 1 = offset of the region, 2 = of the source, 8.. = shape, 16.. = strides of the region, 24.. = of the source.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * nwg.x + wid.x) * 256u + lid;
    if (i < u(0u)) {
        w0[u(1u) + strided(i, 8u, 16u)] = r0[u(2u) + strided(i, 8u, 24u)];
    }
}
// KERNEL fill - 1: 0 = count, 1 = the value.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * nwg.x + wid.x) * 256u + lid;
    if (i < u(0u)) {
        w0[i] = f(1u);
    }
}
// KERNEL unary f 1: OP of x; 0 = count, 1, 2 = parameters.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * nwg.x + wid.x) * 256u + lid;
    if (i < u(0u)) {
        let x = r0[i];
        let p = f(1u);
        let q = f(2u);
        w0[i] = OP;
    }
}
// KERNEL unary_grad ff 1: dy times the slope OP at x.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * nwg.x + wid.x) * 256u + lid;
    if (i < u(0u)) {
        let x = r0[i];
        let p = f(1u);
        let q = f(2u);
        w0[i] = r1[i] * (OP);
    }
}
// KERNEL binary ff 1: a OP b, both strided; 0 = count, 1, 2 = offsets, 8.. = shape, 16.. and 24.. = strides.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * nwg.x + wid.x) * 256u + lid;
    if (i < u(0u)) {
        let a = r0[u(1u) + strided(i, 8u, 16u)];
        let b = r1[u(2u) + strided(i, 8u, 24u)];
        w0[i] = OP;
    }
}
// KERNEL reduce f 1: sums or maxima OP over the middle axis of [outer, length, inner], in pieces of 2 = piece; 0 = outer, 1 = length, 3 = inner, 4 = pieces.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * nwg.x + wid.x) * 256u + lid;
    let inner = u(3u);
    let pieces = u(4u);
    if (i < u(0u) * pieces * inner) {
        let o = i / (pieces * inner);
        let first = (i / inner % pieces) * u(2u);
        let last = min(first + u(2u), u(1u));
        var acc = r0[(o * u(1u) + first) * inner + i % inner];
        for (var j = first + 1u; j < last; j++) {
            let v = r0[(o * u(1u) + j) * inner + i % inner];
            acc = OP;
        }
        w0[i] = acc;
    }
}
// KERNEL argmax f 1: index of the largest of each row of 1 = width; 0 = rows.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * nwg.x + wid.x) * 256u + lid;
    if (i < u(0u)) {
        var at = 0u;
        for (var j = 1u; j < u(1u); j++) {
            if (r0[i * u(1u) + j] > r0[i * u(1u) + at]) {
                at = j;
            }
        }
        w0[i] = bitcast<f32>(at);
    }
}
// KERNEL adamw ff 3: a step on w0 = parameter, w1, w2 = moments, r0 = gradient, r1 = its factor; 0 = count, 2 = 1 - beta1, 3 = beta2, 4 = 1 - beta2, 5 = root, 6 = eps, 7 = keep, 8 = size.
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
