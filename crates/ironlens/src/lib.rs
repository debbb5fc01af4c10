//! ironlens
