// f to 1: OP of x, which may have parameters p() and q().
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * nwg.x + wid.x) * 256u + lid;
    if (i < count()) {
        let x = r0[i];
        w0[i] = OP;
    }
}
