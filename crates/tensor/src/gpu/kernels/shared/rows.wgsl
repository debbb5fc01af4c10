// Sums and maxima over rows of r0, each by a workgroup of 64 threads.
var<workgroup> sh: array<f32, 64>;

fn sum_all(v: f32, lid: u32) -> f32 {
    sh[lid] = v;
    workgroupBarrier();
    for (var s = 32u; s > 0u; s = s >> 1u) {
        if (lid < s) {
            sh[lid] = sh[lid] + sh[lid + s];
        }
        workgroupBarrier();
    }
    let total = sh[0];
    workgroupBarrier();
    return total;
}

fn max_all(v: f32, lid: u32) -> f32 {
    sh[lid] = v;
    workgroupBarrier();
    for (var s = 32u; s > 0u; s = s >> 1u) {
        if (lid < s) {
            sh[lid] = max(sh[lid], sh[lid + s]);
        }
        workgroupBarrier();
    }
    let largest = sh[0];
    workgroupBarrier();
    return largest;
}

// The largest of a row; hidden scores count as very small.
fn row_max(row: u32, lid: u32) -> f32 {
    var largest = -3.0e38;
    for (var j = lid; j < width(); j += 64u) {
        let v = r0[row * width() + j];
        if (!is_hidden(v)) {
            largest = max(largest, v);
        }
    }
    return max_all(largest, lid);
}

// The sum of the exponentials of a row less its largest.
fn row_sum_exp(row: u32, largest: f32, lid: u32) -> f32 {
    var total = 0.0;
    for (var j = lid; j < width(); j += 64u) {
        let v = r0[row * width() + j];
        if (!is_hidden(v)) {
            total += exp_(exactly(v - largest));
        }
    }
    return sum_all(total, lid);
}

fn row_mean(row: u32, lid: u32) -> f32 {
    var total = 0.0;
    for (var j = lid; j < width(); j += 64u) {
        total += r0[row * width() + j];
    }
    return sum_all(total, lid) / f32(width());
}

fn row_rms(row: u32, mean: f32, eps: f32, lid: u32) -> f32 {
    var total = 0.0;
    for (var j = lid; j < width(); j += 64u) {
        let v = r0[row * width() + j] - mean;
        total += v * v;
    }
    return sqrt(sum_all(total, lid) / f32(width()) + eps);
}
