// f to 1: writes a strided region; 0 = count, 1 = offset of the region, 2 = of the source, 8.. = shape, 16..
// = strides of the region, 24.. = of the source.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * nwg.x + wid.x) * 256u + lid;
    if (i < u(0u)) {
        w0[u(1u) + strided(i, 8u, 16u)] = r0[u(2u) + strided(i, 8u, 24u)];
    }
}
