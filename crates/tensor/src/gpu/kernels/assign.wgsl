// f to 1: writes r0 over a strided region.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * nwg.x + wid.x) * 256u + lid;
    if (i < count()) {
        w0[region_offset() + strided(i, shape, region_strides)] = r0[src_offset() + strided(i, shape, src_strides)];
    }
}
