// fuu to 1: 0 = count, 1 = width; r1 = where each row's positions begin, r2 = positions.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * nwg.x + wid.x) * 256u + lid;
    if (i < u(0u)) {
        let row = i / u(1u);
        var sum = 0.0;
        for (var p = r1[row]; p < r1[row + 1u]; p++) {
            sum += r0[r2[p] * u(1u) + i % u(1u)];
        }
        w0[i] = sum;
    }
}
