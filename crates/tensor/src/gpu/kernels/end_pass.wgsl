// - to 1: counts the passes that have ended.
@compute @workgroup_size(1)
fn main() {
    w0[0] = f32((u32(w0[0]) + 1u) % starts_again());
}
