// KERNEL matmul ff 1: [batch, m, n] = [batch, m, k] x [batch, k, n]; 0 = m, 1 = k, 2 = n, 3, 4, 5 = batch, row and column stride of a, 6 = its offset, 7, 8, 9, 10 = those of b. A workgroup makes a 64 x 64 tile, a thread 4 x 4 of it.
var<workgroup> ta: array<f32, 1024>;
var<workgroup> tb: array<f32, 1024>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let m = u(0u);
    let k = u(1u);
    let n = u(2u);
    let row0 = wid.y * 64u;
    let col0 = wid.x * 64u;
    let base_a = u(6u) + wid.z * u(3u);
    let base_b = u(10u) + wid.z * u(7u);
    let ty = lid / 16u;
    let tx = lid % 16u;
    var c0 = vec4<f32>(0.0);
    var c1 = vec4<f32>(0.0);
    var c2 = vec4<f32>(0.0);
    var c3 = vec4<f32>(0.0);
    for (var k0 = 0u; k0 < k; k0 += 16u) {
        for (var t = 0u; t < 4u; t++) {
            let e = lid + t * 256u;
            // Neighbouring threads read along whichever axis is dense.
            var ar = e / 16u;
            var ak = e % 16u;
            if (u(5u) != 1u) {
                ar = e % 64u;
                ak = e / 64u;
            }
            let a_in = row0 + ar < m && k0 + ak < k;
            let a_at = select(0u, base_a + (row0 + ar) * u(4u) + (k0 + ak) * u(5u), a_in);
            ta[ak * 64u + ar] = select(0.0, r0[a_at], a_in);
            var bk = e / 64u;
            var bc = e % 64u;
            if (u(9u) != 1u) {
                bk = e % 16u;
                bc = e / 16u;
            }
            let b_in = k0 + bk < k && col0 + bc < n;
            let b_at = select(0u, base_b + (k0 + bk) * u(8u) + (col0 + bc) * u(9u), b_in);
            tb[bk * 64u + bc] = select(0.0, r1[b_at], b_in);
        }
        workgroupBarrier();
        for (var j = 0u; j < 16u; j++) {
            let at = j * 64u + ty * 4u;
            let bt = j * 64u + tx * 4u;
            let b = vec4<f32>(tb[bt], tb[bt + 1u], tb[bt + 2u], tb[bt + 3u]);
            c0 = fma(vec4<f32>(ta[at]), b, c0);
            c1 = fma(vec4<f32>(ta[at + 1u]), b, c1);
            c2 = fma(vec4<f32>(ta[at + 2u]), b, c2);
            c3 = fma(vec4<f32>(ta[at + 3u]), b, c3);
        }
        workgroupBarrier();
    }
    let out = wid.z * m * n;
    store(out, row0 + ty * 4u, col0 + tx * 4u, c0);
    store(out, row0 + ty * 4u + 1u, col0 + tx * 4u, c1);
    store(out, row0 + ty * 4u + 2u, col0 + tx * 4u, c2);
    store(out, row0 + ty * 4u + 3u, col0 + tx * 4u, c3);
}

fn store(out: u32, row: u32, col: u32, c: vec4<f32>) {
    let n = u(2u);
    if (row < u(0u)) {
        let at = out + row * n + col;
        if (col < n) { w0[at] = c.x; }
        if (col + 1u < n) { w0[at + 1u] = c.y; }
        if (col + 2u < n) { w0[at + 2u] = c.z; }
        if (col + 3u < n) { w0[at + 3u] = c.w; }
    }
}
