// f to 1: index of the largest of each row, of the first NaN if there is one, of the first of equals.
var<workgroup> keys: array<u32, 256>;
var<workgroup> places: array<u32, 256>;

// Bits that are in the order of numbers, of which none is 0: NaN is above all, and both zeros are one.
fn key_of(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    if (is_nan(x)) {
        return 0xffffffffu;
    }
    if (bits_of(x) == 0u) {
        return 0x80000000u;
    }
    return select(bits | 0x80000000u, ~bits, bits > 0x80000000u);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = min(wid.y * nwg.x + wid.x, rows() - 1u);
    var key = 0u;
    var place = 0u;
    for (var j = lid; j < width(); j += 256u) {
        let here = key_of(r0[row * width() + j]);
        if (here > key) {
            key = here;
            place = j;
        }
    }
    keys[lid] = key;
    places[lid] = place;
    workgroupBarrier();
    for (var s = 128u; s > 0u; s = s >> 1u) {
        if (lid < s) {
            let key = keys[lid + s];
            let place = places[lid + s];
            if (key > keys[lid] || (key == keys[lid] && place < places[lid])) {
                keys[lid] = key;
                places[lid] = place;
            }
        }
        workgroupBarrier();
    }
    if (lid == 0u) {
        w0[row] = bitcast<f32>(places[0]);
    }
}
