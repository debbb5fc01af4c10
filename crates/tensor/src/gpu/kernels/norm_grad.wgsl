// ffff to 2 with rows: r1 = scale, r2 = w, r3 = dy; w0 = dx, w1 = dy n, whose column sums are dw.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = min(wid.y * nwg.x + wid.x, rows() - 1u);
    let mean = select(0.0, row_mean(row, lid), centred());
    let scale = r1[row];
    var sum_g = 0.0;
    var sum_gn = 0.0;
    for (var j = lid; j < width(); j += 64u) {
        let at = row * width() + j;
        let n = (r0[at] - mean) / scale;
        var g = r3[at];
        w1[at] = g * n;
        if (has_w()) { g = g * r2[j]; }
        sum_g += g;
        sum_gn += g * n;
    }
    let total_g = sum_all(sum_g, lid);
    let shift = select(0.0, total_g / f32(width()), centred());
    let along = sum_all(sum_gn, lid) / f32(width());
    for (var j = lid; j < width(); j += 64u) {
        let at = row * width() + j;
        let n = (r0[at] - mean) / scale;
        var g = r3[at];
        if (has_w()) { g = g * r2[j]; }
        w0[at] = (g - shift - n * along) / scale;
    }
}
