// f to 1: sums or maxima OP over the middle axis of [outer, length, inner], in pieces of 2 = piece; 0 =
// outer, 1 = length, 3 = inner, 4 = pieces.
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
