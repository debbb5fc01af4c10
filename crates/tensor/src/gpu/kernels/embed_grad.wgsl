// fuu to 1: r0 summed by row of the table; r1 = where the positions of each row begin, r2 = positions.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * nwg.x + wid.x) * 256u + lid;
    if (i < count()) {
        let row = i / width();
        var sum = 0.0;
        for (var p = r1[row]; p < r1[row + 1u]; p++) {
            sum += r0[r2[p] * width() + i % width()];
        }
        w0[i] = sum;
    }
}
