// SHARED
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
    for (var j = lid; j < u(1u); j += 64u) {
        let v = r0[row * u(1u) + j];
        if (!is_hidden(v)) {
            largest = max(largest, v);
        }
    }
    return max_all(largest, lid);
}

// The sum of the exponentials of a row less its largest.
fn row_sum_exp(row: u32, largest: f32, lid: u32) -> f32 {
    var total = 0.0;
    for (var j = lid; j < u(1u); j += 64u) {
        let v = r0[row * u(1u) + j];
        if (!is_hidden(v)) {
            total += exp_(v - largest);
        }
    }
    return sum_all(total, lid);
}

fn row_mean(row: u32, lid: u32) -> f32 {
    var total = 0.0;
    for (var j = lid; j < u(1u); j += 64u) {
        total += r0[row * u(1u) + j];
    }
    return sum_all(total, lid) / f32(u(1u));
}

fn row_rms(row: u32, mean: f32, eps: f32, lid: u32) -> f32 {
    var total = 0.0;
    for (var j = lid; j < u(1u); j += 64u) {
        let v = r0[row * u(1u) + j] - mean;
        total += v * v;
    }
    return sqrt(sum_all(total, lid) / f32(u(1u)) + eps);
}
// KERNEL softmax f 1: 0 = rows, 1 = width; zeros where a row is hidden throughout.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = min(wid.y * nwg.x + wid.x, u(0u) - 1u);
    let largest = row_max(row, lid);
    let total = row_sum_exp(row, largest, lid);
    for (var j = lid; j < u(1u); j += 64u) {
        let v = r0[row * u(1u) + j];
        w0[row * u(1u) + j] = select(exp_(v - largest) / total, 0.0, is_hidden(v));
    }
}
// KERNEL softmax_grad ff 1: y (dy - sum(dy y)); r0 = y.
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
// KERNEL log_softmax f 1
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = min(wid.y * nwg.x + wid.x, u(0u) - 1u);
    let largest = row_max(row, lid);
    let rest = log_(row_sum_exp(row, largest, lid));
    for (var j = lid; j < u(1u); j += 64u) {
        w0[row * u(1u) + j] = (r0[row * u(1u) + j] - largest) - rest;
    }
}
// KERNEL log_softmax_grad ff 1: dy - exp(y) sum(dy); r0 = y.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = min(wid.y * nwg.x + wid.x, u(0u) - 1u);
    var total = 0.0;
    for (var j = lid; j < u(1u); j += 64u) {
        total += r1[row * u(1u) + j];
    }
    total = sum_all(total, lid);
    for (var j = lid; j < u(1u); j += 64u) {
        let at = row * u(1u) + j;
        w0[at] = r1[at] - exp_(r0[at]) * total;
    }
}
// KERNEL center f 1
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = min(wid.y * nwg.x + wid.x, u(0u) - 1u);
    let mean = row_mean(row, lid);
    for (var j = lid; j < u(1u); j += 64u) {
        w0[row * u(1u) + j] = r0[row * u(1u) + j] - mean;
    }
}
// KERNEL rms f 1: 2 = eps; one number per row.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = min(wid.y * nwg.x + wid.x, u(0u) - 1u);
    let scale = row_rms(row, 0.0, f(2u), lid);
    if (lid == 0u) {
        w0[row] = scale;
    }
}
// KERNEL rms_grad fff 1: x dscale / (n scale); r1 = scale, r2 = dscale.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = min(wid.y * nwg.x + wid.x, u(0u) - 1u);
    let factor = r2[row] / (f32(u(1u)) * r1[row]);
    for (var j = lid; j < u(1u); j += 64u) {
        w0[row * u(1u) + j] = r0[row * u(1u) + j] * factor;
    }
}
// KERNEL scale_shift ffff 1: x / scale * w + b; r1 = scale, r2 = w if 2, r3 = b if 3.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = min(wid.y * nwg.x + wid.x, u(0u) - 1u);
    for (var j = lid; j < u(1u); j += 64u) {
        var v = r0[row * u(1u) + j] / r1[row];
        if (u(2u) == 1u) { v = v * r2[j]; }
        if (u(3u) == 1u) { v = v + r3[j]; }
        w0[row * u(1u) + j] = v;
    }
}
// KERNEL norm fff 2: r1 = w if 2, r2 = b if 3, 4 = centre, 5 = eps; w1 = scale.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = min(wid.y * nwg.x + wid.x, u(0u) - 1u);
    let mean = select(0.0, row_mean(row, lid), u(4u) == 1u);
    let scale = row_rms(row, mean, f(5u), lid);
    for (var j = lid; j < u(1u); j += 64u) {
        var v = (r0[row * u(1u) + j] - mean) / scale;
        if (u(2u) == 1u) { v = v * r1[j]; }
        if (u(3u) == 1u) { v = v + r2[j]; }
        w0[row * u(1u) + j] = v;
    }
    if (lid == 0u) {
        w1[row] = scale;
    }
}
// KERNEL norm_grad ffff 2: r1 = scale, r2 = w if 2, r3 = dy, 4 = centre; w0 = dx, w1 = dy n, whose column sums are dw.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = min(wid.y * nwg.x + wid.x, u(0u) - 1u);
    let mean = select(0.0, row_mean(row, lid), u(4u) == 1u);
    let scale = r1[row];
    var sum_g = 0.0;
    var sum_gn = 0.0;
    for (var j = lid; j < u(1u); j += 64u) {
        let at = row * u(1u) + j;
        let n = (r0[at] - mean) / scale;
        var g = r3[at];
        w1[at] = g * n;
        if (u(2u) == 1u) { g = g * r2[j]; }
        sum_g += g;
        sum_gn += g * n;
    }
    let total_g = sum_all(sum_g, lid);
    let shift = select(0.0, total_g / f32(u(1u)), u(4u) == 1u);
    let along = sum_all(sum_gn, lid) / f32(u(1u));
    for (var j = lid; j < u(1u); j += 64u) {
        let at = row * u(1u) + j;
        let n = (r0[at] - mean) / scale;
        var g = r3[at];
        if (u(2u) == 1u) { g = g * r2[j]; }
        w0[at] = (g - shift - n * along) / scale;
    }
}
// KERNEL cross_entropy fu 1: r1 = targets; one loss per row.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = min(wid.y * nwg.x + wid.x, u(0u) - 1u);
    let largest = row_max(row, lid);
    let rest = log_(row_sum_exp(row, largest, lid));
    if (lid == 0u) {
        w0[row] = rest - (r0[row * u(1u) + r1[row]] - largest);
    }
}
// KERNEL cross_entropy_grad fuf 1: r1 = targets, r2 = gradient of each row.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = min(wid.y * nwg.x + wid.x, u(0u) - 1u);
    let largest = row_max(row, lid);
    let rest = log_(row_sum_exp(row, largest, lid));
    for (var j = lid; j < u(1u); j += 64u) {
        let p = exp_((r0[row * u(1u) + j] - largest) - rest);
        w0[row * u(1u) + j] = p * r2[row] - select(0.0, r2[row], j == r1[row]);
    }
}
