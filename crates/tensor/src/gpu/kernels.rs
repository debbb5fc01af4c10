//! Every kernel but products (see `matmul/`): a file of `kernels/` each, and the words that a dispatch gives it.

use std::marker::PhantomData;

use super::source::Source;
use super::words::{AxisList, Words, declarations, flags, words};
use crate::backend::AttentionSpec;

/// A kernel that takes the words `W`.
pub(super) struct Kernel<W> {
    pub name: &'static str,
    file: &'static str,
    words: PhantomData<fn(&W)>,
}

impl<W: Words> Kernel<W> {
    /// Its WGSL, with `op` in the place of `OP`.
    pub fn source(&self, op: &str) -> Source {
        Source::of_file(self.file, &declarations::<W>(), op)
    }
}

/// A constant for each kernel, of the file that has its name.
macro_rules! kernels {
    ($($kernel:ident = $name:literal: $words:ty;)*) => {
        $(pub(super) const $kernel: Kernel<$words> = Kernel {
            name: $name,
            file: include_str!(concat!("kernels/", $name, ".wgsl")),
            words: PhantomData,
        };)*

        /// Every kernel's name, file and words in WGSL.
        #[cfg(test)]
        pub(super) fn all() -> Vec<(&'static str, &'static str, String)> {
            vec![$(($name, $kernel.file, declarations::<$words>())),*]
        }
    };
}

kernels! {
    CONTIGUOUS = "contiguous": Contiguous;
    ASSIGN = "assign": Assign;
    FILL = "fill": Fill;
    UNARY = "unary": Unary;
    UNARY_GRAD = "unary_grad": Unary;
    BINARY = "binary": Binary;
    REDUCE = "reduce": Reduce;
    ARGMAX = "argmax": Rows;
    SOFTMAX = "softmax": Rows;
    SOFTMAX_GRAD = "softmax_grad": Rows;
    LOG_SOFTMAX = "log_softmax": Rows;
    LOG_SOFTMAX_GRAD = "log_softmax_grad": Rows;
    CENTER = "center": Rows;
    RMS = "rms": Rms;
    RMS_GRAD = "rms_grad": Rows;
    SCALE_AND_SHIFT = "scale_and_shift": ScaleAndShift;
    NORM = "norm": Norm;
    NORM_GRAD = "norm_grad": NormGrad;
    SCORES_GRAD = "scores_grad": ScoresGrad;
    ROTARY = "rotary": Rotary;
    EMBED = "embed": Embed;
    EMBED_GRAD = "embed_grad": Embed;
    CROSS_ENTROPY = "cross_entropy": Rows;
    CROSS_ENTROPY_GRAD = "cross_entropy_grad": Rows;
    ADAMW = "adamw": AdamW;
    END_PASS = "end_pass": EndPass;
}

words! {
    Contiguous {
        count: usize,
        offset: usize,
        shape: AxisList,
        strides: AxisList,
    }
    Assign {
        count: usize,
        region_offset: usize,
        src_offset: usize,
        shape: AxisList,
        region_strides: AxisList,
        src_strides: AxisList,
    }
    Fill {
        count: usize,
        value: f64,
    }
    Unary {
        count: usize,
        /// Parameters of the op, if it has any.
        p: f64,
        q: f64,
    }
    Binary {
        count: usize,
        dense: DenseOperands,
        a_offset: usize,
        b_offset: usize,
        shape: AxisList,
        a_strides: AxisList,
        b_strides: AxisList,
    }
    /// Over the middle axis of `[outer, along, inner]`.
    Reduce {
        outer: usize,
        along: usize,
        inner: usize,
        /// Elements of the middle axis that one thread takes, and how many such pieces there are.
        piece: usize,
        pieces: usize,
    }
    Rows {
        rows: usize,
        width: usize,
    }
    Rms {
        each: Rows,
        eps: f64,
    }
    ScaleAndShift {
        each: Rows,
        has_w: bool,
        has_b: bool,
    }
    Norm {
        each: Rows,
        centred: bool,
        eps: f64,
        has_w: bool,
        has_b: bool,
    }
    NormGrad {
        each: Rows,
        centred: bool,
        has_w: bool,
    }
    /// How scores follow from products: `kernels/shared/scores.wgsl`.
    Scores {
        flags: ScoreFlags,
        query_start: usize,
        window: usize,
        scale: f64,
        soft_cap: f64,
    }
    ScoresGrad {
        count: usize,
        heads: usize,
        queries: usize,
        keys: usize,
        scores: Scores,
    }
    Rotary {
        count: usize,
        positions: usize,
        heads: usize,
        d_head: usize,
        /// Pairs of coordinates that are turned.
        pairs: usize,
        interleaved: bool,
        /// Whether each item of the batch has its own angles.
        per_item: bool,
        inverse: bool,
    }
    Embed {
        count: usize,
        width: usize,
    }
    AdamW {
        count: usize,
        one_minus_beta1: f64,
        beta2: f64,
        one_minus_beta2: f64,
        /// The root of `1 - beta2^step`.
        correction2_root: f64,
        eps: f64,
        /// What weight decay leaves of a parameter.
        keep: f64,
        step_size: f64,
    }
    EndPass {
        /// The number that is counted as 0.
        starts_again: usize,
    }
}

flags! {
    /// Operands of which element `i` is the one at `i`.
    DenseOperands {
        a_dense,
        b_dense,
    }
}

flags! {
    /// What scores have, of all that they may have.
    ScoreFlags {
        causal,
        has_window,
        has_soft_cap,
        has_alibi,
        /// Whether its bias is of the key alone, in `bf16`.
        alibi_bf16,
        has_key_mask,
    }
}

impl From<&AttentionSpec> for Scores {
    fn from(spec: &AttentionSpec) -> Scores {
        let flags = ScoreFlags {
            causal: spec.causal,
            has_window: spec.window.is_some(),
            has_soft_cap: spec.soft_cap.is_some(),
            has_alibi: spec.alibi.is_some(),
            alibi_bf16: spec.counts_keys(),
            has_key_mask: spec.key_mask.is_some(),
        };
        Scores {
            flags,
            query_start: spec.query_start,
            // Further than there are keys, and so that a place and it are counted in 32 bits.
            window: spec.window.unwrap_or(0).min(1 << 31),
            scale: spec.scale,
            soft_cap: spec.soft_cap.unwrap_or(1.0),
        }
    }
}
