// ff to 1 with rows: y (dy - sum(dy y)); r0 = y.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = min(wid.y * nwg.x + wid.x, rows() - 1u);
    var dot = 0.0;
    for (var j = lid; j < width(); j += 64u) {
        let at = row * width() + j;
        dot += r0[at] * r1[at];
    }
    dot = sum_all(dot, lid);
    for (var j = lid; j < width(); j += 64u) {
        let at = row * width() + j;
        w0[at] = r0[at] * (r1[at] - dot);
    }
}
