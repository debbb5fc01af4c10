// f to 1: sums or maxima OP over the middle axis of [outer, along, inner], in pieces.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * nwg.x + wid.x) * 256u + lid;
    if (i < outer() * pieces() * inner()) {
        let o = i / (pieces() * inner());
        let first = (i / inner() % pieces()) * piece();
        let last = min(first + piece(), along());
        var acc = r0[(o * along() + first) * inner() + i % inner()];
        for (var j = first + 1u; j < last; j++) {
            let v = r0[(o * along() + j) * inner() + i % inner()];
            acc = OP;
        }
        w0[i] = acc;
    }
}
