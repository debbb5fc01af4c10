//! Words: the parameters of a kernel, by name. What a dispatch is given is a struct, and its kernel's WGSL has a
//! function for each field, of the same name: of `count: usize` it reads `count()`. So neither side knows where a word
//! lies, and a name that only one of them has does not compile (Rust), or is told by a test (WGSL: `source.rs`).

/// Words that every kernel is given, of 32 bits each: as many as any device takes as immediates.
pub(super) const WORDS: usize = 32;
/// The last word, negative infinity: WGSL has no literal for it.
const MINUS_INFINITY: usize = WORDS - 1;
/// The word before it, 0: one that no compiler can know (`exactly` in `kernels/shared/math.wgsl`).
const ZERO: usize = WORDS - 2;
/// Axes of a tensor that is read by its strides.
const AXES: usize = 7;

/// What every kernel begins with: its words by their places, which only functions below read.
pub(super) const READ_WORDS: &str = "struct Words { all: array<vec4<u32>, 8> }\nvar<immediate> words: Words;\n\
     fn word(i: u32) -> u32 { return words.all[i >> 2u][i & 3u]; }\n\
     fn minus_infinity() -> f32 { return bitcast<f32>(word(31u)); }\n\
     fn zero() -> u32 { return word(30u); }\n";

/// One word or several, as the host gives them and as WGSL reads them.
pub(super) trait Words {
    /// How many they are.
    const COUNT: usize;

    /// WGSL that reads them by the name `name`, from word `at` on.
    fn declare(name: &str, at: usize, text: &mut String);

    fn write(&self, to: &mut Args);
}

/// WGSL that reads the words of a kernel.
pub(super) fn declarations<W: Words>() -> String {
    let mut text = String::new();
    W::declare("", 0, &mut text);
    text
}

/// The words of a dispatch, as the device takes them.
#[derive(Clone)]
pub(super) struct Args {
    words: [u32; WORDS],
    len: usize,
}

impl Args {
    pub fn of<W: Words>(words: &W) -> Args {
        const { assert!(W::COUNT <= ZERO, "a kernel has more words than there is room for") }
        let mut args = Args { words: [0; WORDS], len: 0 };
        args.words[MINUS_INFINITY] = f32::NEG_INFINITY.to_bits();
        words.write(&mut args);
        args
    }

    pub fn as_bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.words)
    }

    fn push(&mut self, word: u32) {
        self.words[self.len] = word;
        self.len += 1;
    }
}

impl Words for usize {
    const COUNT: usize = 1;

    fn declare(name: &str, at: usize, text: &mut String) {
        *text += &format!("fn {name}() -> u32 {{ return word({at}u); }}\n");
    }

    fn write(&self, to: &mut Args) {
        to.push(u32::try_from(*self).expect("sizes of GPU tensors fit 32 bits"));
    }
}

impl Words for f64 {
    const COUNT: usize = 1;

    fn declare(name: &str, at: usize, text: &mut String) {
        *text += &format!("fn {name}() -> f32 {{ return bitcast<f32>(word({at}u)); }}\n");
    }

    fn write(&self, to: &mut Args) {
        to.push((*self as f32).to_bits());
    }
}

impl Words for bool {
    const COUNT: usize = 1;

    fn declare(name: &str, at: usize, text: &mut String) {
        *text += &format!("fn {name}() -> bool {{ return word({at}u) != 0u; }}\n");
    }

    fn write(&self, to: &mut Args) {
        to.push(u32::from(*self));
    }
}

/// Several of a kind: `name(i)`.
impl<const N: usize> Words for [usize; N] {
    const COUNT: usize = N;

    fn declare(name: &str, at: usize, text: &mut String) {
        *text += &format!("fn {name}(i: u32) -> u32 {{ return word({at}u + i); }}\n");
    }

    fn write(&self, to: &mut Args) {
        self.iter().for_each(|word| word.write(to));
    }
}

/// Lengths or strides of up to seven axes, the last at its place whatever their number. In WGSL the name is a constant
/// that `strided` (`kernels/shared/strided.wgsl`) takes.
#[derive(Clone, Debug)]
pub(super) struct AxisList([usize; AXES]);

impl AxisList {
    pub fn lengths(shape: &[usize]) -> AxisList {
        AxisList::filled(shape, 1)
    }

    pub fn strides(strides: &[usize]) -> AxisList {
        AxisList::filled(strides, 0)
    }

    /// Lengths and strides of operands of `shape` with as few axes as they all allow: those of length 1 are left out,
    /// and neighbours that each operand has side by side are one.
    pub fn merged<const N: usize>(shape: &[usize], strides: [&[usize]; N]) -> (AxisList, [AxisList; N]) {
        let mut lengths: Vec<usize> = Vec::new();
        let mut merged: [Vec<usize>; N] = [const { Vec::new() }; N];
        for (axis, &length) in shape.iter().enumerate().filter(|(_, length)| **length != 1) {
            let own = strides.map(|s| s[axis]);
            let beside = |(before, own): (&Vec<usize>, usize)| before.last() == Some(&own.saturating_mul(length));
            if merged.iter().zip(own).all(beside) {
                *lengths.last_mut().expect("there is an axis before") *= length;
                merged.iter_mut().for_each(|m| m.truncate(lengths.len() - 1));
            } else {
                lengths.push(length);
            }
            merged.iter_mut().zip(own).for_each(|(m, own)| m.push(own));
        }
        (AxisList::lengths(&lengths), merged.map(|m| AxisList::strides(&m)))
    }

    fn filled(values: &[usize], before: usize) -> AxisList {
        assert!(values.len() <= AXES, "GPU kernels take tensors of up to seven axes, not {}", values.len());
        let mut all = [before; AXES];
        all[AXES - values.len()..].copy_from_slice(values);
        AxisList(all)
    }
}

impl Words for AxisList {
    const COUNT: usize = AXES;

    fn declare(name: &str, at: usize, text: &mut String) {
        *text += &format!("const {name} = {at}u;\n");
    }

    fn write(&self, to: &mut Args) {
        self.0.write(to);
    }
}

/// Structs whose fields are words. One that is a field of another is a group: its fields keep their own names.
macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $field:ident: $kind:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub(in crate::gpu) struct $name {
            $($(#[$about])* pub $field: $kind,)*
        }

        impl $crate::gpu::words::Words for $name {
            const COUNT: usize = 0 $(+ <$kind as $crate::gpu::words::Words>::COUNT)*;

            fn declare(_: &str, at: usize, text: &mut String) {
                let ends = [$(<$kind as $crate::gpu::words::Words>::COUNT),*].into_iter().scan(at, |end, count| {
                    *end += count;
                    Some(*end)
                });
                let mut starts = std::iter::once(at).chain(ends);
                $(if let Some(start) = starts.next() {
                    <$kind as $crate::gpu::words::Words>::declare(stringify!($field), start, text);
                })*
            }

            fn write(&self, to: &mut $crate::gpu::words::Args) {
                $($crate::gpu::words::Words::write(&self.$field, to);)*
            }
        }
    )*};
}

/// A struct of flags that share one word, a bit each.
macro_rules! flags {
    ($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $field:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub(in crate::gpu) struct $name {
            $($(#[$about])* pub $field: bool,)*
        }

        impl $crate::gpu::words::Words for $name {
            const COUNT: usize = 1;

            fn declare(_: &str, at: usize, text: &mut String) {
                for (bit, name) in [$(stringify!($field)),*].into_iter().enumerate() {
                    let mask = 1u32 << bit;
                    *text += &format!("fn {name}() -> bool {{ return (word({at}u) & {mask}u) != 0u; }}\n");
                }
            }

            fn write(&self, to: &mut $crate::gpu::words::Args) {
                let flags = [$(self.$field),*].into_iter().enumerate();
                flags.map(|(bit, on)| usize::from(on) << bit).sum::<usize>().write(to);
            }
        }
    };
}

pub(super) use {flags, words};

#[cfg(test)]
mod tests {
    use super::*;

    flags! {
        Flags {
            first,
            second,
        }
    }

    words! {
        Group {
            flags: Flags,
            size: f64,
        }
        Whole {
            count: usize,
            strides: AxisList,
            group: Group,
            batch: [usize; 2],
        }
    }

    #[test]
    fn both_sides_agree_where_a_word_lies() {
        let group = Group { flags: Flags { first: false, second: true }, size: 0.5 };
        let whole = Whole { count: 9, strides: AxisList::strides(&[3, 1]), group, batch: [5, 6] };
        let words = Args::of(&whole).words;
        assert_eq!(words[..8], [9, 0, 0, 0, 0, 0, 3, 1]);
        assert_eq!(words[8..12], [2, 0.5f32.to_bits(), 5, 6]);
        assert_eq!(words[30..], [0, f32::NEG_INFINITY.to_bits()]);
        let text = declarations::<Whole>();
        let read = [
            "fn count() -> u32 { return word(0u); }",
            "const strides = 1u;",
            "fn first() -> bool { return (word(8u) & 1u) != 0u; }",
            "fn second() -> bool { return (word(8u) & 2u) != 0u; }",
            "fn size() -> f32 { return bitcast<f32>(word(9u)); }",
            "fn batch(i: u32) -> u32 { return word(10u + i); }",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), read);
    }

    #[test]
    fn axes_that_lie_side_by_side_in_all_operands_are_one() {
        let merged = |shape: &[usize], a: &[usize], b: &[usize]| {
            let (lengths, [a, b]) = AxisList::merged(shape, [a, b]);
            assert_eq!((lengths.0[..4].iter().product::<usize>(), a.0[..4].iter().sum::<usize>()), (1, 0));
            [lengths, a, b].map(|list| list.0[4..].to_vec())
        };
        // Dense, and a scalar.
        assert_eq!(merged(&[2, 3, 4], &[12, 4, 1], &[0, 0, 0]), [[1, 1, 24], [0, 0, 1], [0, 0, 0]]);
        // A row for each of several, with an axis of length 1 of any stride.
        assert_eq!(merged(&[2, 3, 1, 4], &[12, 4, 9, 1], &[0, 0, 0, 1]), [[1, 6, 4], [0, 4, 1], [0, 0, 1]]);
        // A number for each row, and a transposed matrix.
        assert_eq!(merged(&[2, 3, 4], &[12, 1, 3], &[3, 1, 0]), [[2, 3, 4], [12, 1, 3], [3, 1, 0]]);
        assert_eq!(merged(&[], &[], &[]), [[1, 1, 1], [0, 0, 0], [0, 0, 0]]);
        assert_eq!(merged(&[1, 1], &[7, 1], &[0, 0]), [[1, 1, 1], [0, 0, 0], [0, 0, 0]]);
    }

    #[test]
    #[should_panic(expected = "GPU kernels take tensors of up to seven axes, not 8")]
    fn more_axes_than_a_kernel_walks_are_refused() {
        AxisList::lengths(&[1; 8]);
    }
}
