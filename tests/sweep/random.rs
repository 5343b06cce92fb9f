//! Numbers that a seed gives the same each time.

/// xorshift64*.
pub struct Random(u64);

impl Random {
    /// The seed is not zero.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// One below this.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }

    /// One of these.
    pub fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// Whether something happens that does in so many of a hundred cases.
    pub fn percent(&mut self, of: u64) -> bool {
        self.below(100) < of
    }
}
