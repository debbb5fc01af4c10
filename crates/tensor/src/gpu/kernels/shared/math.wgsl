// Scalar functions that agree with the CPU's to a few units in the last place on every driver: a
// driver's own tanh and log may be coarse near 0 and 1, and Metal compiles with fast math. That lets a
// compiler regroup sums, for which `exactly` is, and take it that nothing is NaN or infinite: comparisons of
// numbers may come out either way for NaN, so what is to be done with it is decided by bits.

// x, as a number of which a compiler knows nothing (zero() is given at run time): a sum of it and others is not
// regrouped. (a - largest) - rest, of a near the largest, would be lost in a - (largest + rest).
fn exactly(x: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(x) ^ zero());
}

// Bits of |x|, of which a compiler does not know whose they are: it might take it that x is not NaN, for it was added.
fn bits_of(x: f32) -> u32 {
    return (bitcast<u32>(x) ^ zero()) & 0x7fffffffu;
}

fn is_nan(x: f32) -> bool {
    return bits_of(x) > 0x7f800000u;
}

// NaN, for x of which a function has no value; x itself, if it is NaN.
fn nan_of(x: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(x) | 0x7fc00000u);
}

// Whether neither is NaN.
fn ordered(a: f32, b: f32) -> bool {
    return !is_nan(a) && !is_nan(b);
}

fn not_finite(x: f32) -> bool {
    return bits_of(x) >= 0x7f800000u;
}

// A hidden score. The host gives it, since WGSL has no literal for it.
fn hidden_score() -> f32 {
    return minus_infinity();
}

fn is_hidden(x: f32) -> bool {
    return bitcast<u32>(x) == 0xff800000u;
}

// x^p; a driver's own is undefined below 0, and at 0 where p is not above it.
fn pow_(x: f32, p: f32) -> f32 {
    if (p == 0.0) {
        return 1.0;
    }
    if (is_nan(x)) {
        return x;
    }
    // Bits of infinity and of NaN are made while it runs: as constants WGSL refuses them.
    let sign = bitcast<u32>(x) & 0x80000000u;
    if (x == 0.0) {
        return select(0.0, bitcast<f32>((sign & 0u) | 0x7f800000u), p < 0.0);
    }
    let size = pow(abs(x), p);
    if (x > 0.0) {
        return size;
    }
    if (floor(p) != p) {
        return bitcast<f32>(sign | 0x7fc00000u);
    }
    return select(size, -size, floor(p * 0.5) * 2.0 != p);
}

fn exp_(x: f32) -> f32 {
    if (not_finite(x)) {
        return select(x, 0.0, bitcast<u32>(x) == 0xff800000u);
    }
    if (x > 88.0) {
        return exp(x);
    }
    // Cody-Waite reduction and a polynomial, as on the CPU.
    let c = max(x, -87.0);
    let n = round(c * 1.44269504089);
    let r = exactly(c - n * 0.6933594) + n * 2.1219444e-4;
    var p = 1.9875691e-4;
    p = p * r + 1.3981999e-3;
    p = p * r + 8.333452e-3;
    p = p * r + 4.1665796e-2;
    p = p * r + 1.6666665e-1;
    p = p * r + 0.5;
    let y = (p * r) * r + r + 1.0;
    let e = bitcast<f32>(u32(i32(n) + 127) << 23u);
    return select(y * e, 0.0, x < -87.0);
}

// Cephes tanhf; saturates from 9 on, so no exponential overflows.
fn tanh_(x: f32) -> f32 {
    if (is_nan(x)) {
        return x;
    }
    let a = min(abs(x), 15.0);
    if (a < 0.625) {
        let z = x * x;
        let p = (((-5.70498872745e-3 * z + 2.06390887954e-2) * z - 5.37397155531e-2) * z + 1.33314422036e-1) * z
            - 3.33332819422e-1;
        return p * z * x + x;
    }
    let t = 1.0 - 2.0 / (exp_(2.0 * a) + 1.0);
    return select(t, -t, x < 0.0);
}

// Cephes logf.
fn log_(x: f32) -> f32 {
    // Hidden from the driver, which may make comparisons of numbers of those of bits: subnormal ones are 0 in these.
    var bits = bitcast<u32>(x) ^ zero();
    if ((bits << 1u) == 0u) {
        return minus_infinity();
    }
    // Below 0, NaN, and infinity.
    if (bits > 0x80000000u) {
        return nan_of(x);
    }
    if (bits >= 0x7f800000u) {
        return x;
    }
    var e = -126.0;
    if (bits < 0x00800000u) {
        // A subnormal number, which devices take for 0: so many times 2^-149.
        bits = bitcast<u32>(f32(bits));
        e = -275.0;
    }
    e = e + f32(bits >> 23u);
    var m = bitcast<f32>((bits & 0x007fffffu) | 0x3f000000u);
    if (m < 0.70710678) {
        e = e - 1.0;
        m = m + m - 1.0;
    } else {
        m = m - 1.0;
    }
    let z = m * m;
    var y = 7.0376836292e-2 * m - 1.1514610310e-1;
    y = y * m + 1.1676998740e-1;
    y = y * m - 1.2420140846e-1;
    y = y * m + 1.4249322787e-1;
    y = y * m - 1.6668057665e-1;
    y = y * m + 2.0000714765e-1;
    y = y * m - 2.4999993993e-1;
    y = y * m + 3.3333331174e-1;
    y = y * m * z - 2.12194440e-4 * e - 0.5 * z;
    return m + y + 0.693359375 * e;
}

// The CPU's polynomials.
fn erf_(x: f32) -> f32 {
    let a = abs(x);
    let t = min(a, 4.0);
    let s = t * t;
    if (a < 0.9277344) {
        var q = -5.967617e-4;
        q = q * s + 4.991194e-3;
        q = q * s - 2.6768135e-2;
        q = q * s + 1.1281992e-1;
        q = q * s - 3.7612534e-1;
        q = q * s + 1.2837917e-1;
        return q * x + x;
    }
    let v = t * -3.8839644e-3 + 2.4254622e-2;
    var p = (t * -1.7285347e-5 + 3.8319713e-4) * s + v;
    p = p * t - 1.0677788e-1;
    p = p * t - 6.348467e-1;
    p = p * t - 1.2871751e-1;
    let large = 1.0 - exp_(p * t - t);
    return select(large, -large, x < 0.0);
}

fn sigmoid_(x: f32) -> f32 {
    // exp of a number that is at most 0 never overflows.
    let e = exp_(-abs(x));
    return select(e, 1.0, x >= 0.0) / (1.0 + e);
}

// Sine (0) or cosine (1) of x, Cephes sinf and cosf: x less a multiple of a quarter turn, in three
// parts so that the difference is exact, and a polynomial for each of the four quarters.
fn turn(x: f32, start: i32) -> f32 {
    let q = round(x * 0.63661977);
    let r = exactly(exactly(x - q * 1.5703125) - q * 4.83751297e-4) - q * 7.54978995e-8;
    let z = r * r;
    let s = ((-1.9515295891e-4 * z + 8.3321608736e-3) * z - 1.6666654611e-1) * z * r + r;
    let c = ((2.443315711809948e-5 * z - 1.388731625493765e-3) * z + 4.166664568298827e-2) * z * z - 0.5 * z + 1.0;
    let quarter = (i32(q) + start) & 3;
    let y = select(s, c, (quarter & 1) == 1);
    return select(y, -y, quarter > 1);
}

fn sin_(x: f32) -> f32 {
    if (not_finite(x)) {
        return nan_of(x);
    }
    if (abs(x) > 8192.0) {
        return sin(x);
    }
    return turn(x, 0);
}

fn cos_(x: f32) -> f32 {
    if (not_finite(x)) {
        return nan_of(x);
    }
    if (abs(x) > 8192.0) {
        return cos(x);
    }
    return turn(x, 1);
}
