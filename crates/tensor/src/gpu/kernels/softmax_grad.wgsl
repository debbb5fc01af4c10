// ff to 1 with rows: y (dy - sum(dy y)); r0 = y.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = min(wid.y * nwg.x + wid.x, u(0u) - 1u);
    var dot = 0.0;
    for (var j = lid; j < u(1u); j += 64u) {
        let at = row * u(1u) + j;
        dot += r0[at] * r1[at];
    }
    dot = sum_all(dot, lid);
    for (var j = lid; j < u(1u); j += 64u) {
        let at = row * u(1u) + j;
        w0[at] = r0[at] * (r1[at] - dot);
    }
}
