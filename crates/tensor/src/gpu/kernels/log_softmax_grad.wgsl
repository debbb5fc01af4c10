// ff to 1 with rows: dy - exp(y) sum(dy); r0 = y.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = min(wid.y * nwg.x + wid.x, rows() - 1u);
    var total = 0.0;
    for (var j = lid; j < width(); j += 64u) {
        total += r1[row * width() + j];
    }
    total = sum_all(total, lid);
    for (var j = lid; j < width(); j += 64u) {
        let at = row * width() + j;
        w0[at] = r1[at] - exp_(r0[at]) * total;
    }
}
