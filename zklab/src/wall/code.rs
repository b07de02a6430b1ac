//! The instructions that ask the kernel for the time and bend the answer, for x86-64.
//!
//! They stand in one piece: three numbers, then the functions, which reach the numbers and each other by distances, so
//! the piece may lie anywhere. Arguments and what has to be kept are as the System V ABI says; a system call changes
//! rax, rcx and r11.

use super::Skew;

/// Bytes of the numbers in front of the functions: since, shows, rate.
pub(super) const NUMBERS: usize = 24;

/// Where in the piece the functions begin that take the place of the vDSO's.
pub(super) const CLOCK_GETTIME: usize = 0x51;
pub(super) const GETTIMEOFDAY: usize = 0x66;
pub(super) const TIME: usize = 0xb9;

/// Bytes of a jump at the front of a function.
pub(super) const JUMP: usize = 5;

#[rustfmt::skip]
const FUNCTIONS: [u8; 209] = [
    // 0x18 bend: rsi is a timespec of the true time, and becomes what the clock shows. Returns 0.
    0x48, 0x69, 0x06, 0x00, 0xca, 0x9a, 0x3b, // imul rax, [rsi], 1000000000
    0x48, 0x03, 0x46, 0x08,                   // add  rax, [rsi+8]
    0x48, 0x2b, 0x05, 0xd6, 0xff, 0xff, 0xff, // sub  rax, [since]
    0x48, 0xf7, 0x2d, 0xdf, 0xff, 0xff, 0xff, // imul [rate]            rdx:rax
    0x48, 0x0f, 0xac, 0xd0, 0x20,             // shrd rax, rdx, 32
    0x48, 0x03, 0x05, 0xcb, 0xff, 0xff, 0xff, // add  rax, [shows]
    0x31, 0xd2,                               // xor  edx, edx
    0xb9, 0x00, 0xca, 0x9a, 0x3b,             // mov  ecx, 1000000000
    0x48, 0xf7, 0xf1,                         // div  rcx
    0x48, 0x89, 0x06,                         // mov  [rsi], rax
    0x48, 0x89, 0x56, 0x08,                   // mov  [rsi+8], rdx
    0x31, 0xc0,                               // xor  eax, eax
    0xc3,                                     // ret
    // 0x51 clock_gettime(edi: clock, rsi: timespec)
    0xb8, 0xe4, 0x00, 0x00, 0x00,             // mov  eax, 228          clock_gettime
    0x0f, 0x05,                               // syscall
    0x85, 0xc0,                               // test eax, eax
    0x75, 0x09,                               // jnz  out
    0x85, 0xff,                               // test edi, edi
    0x74, 0xb8,                               // jz   bend              CLOCK_REALTIME
    0x83, 0xff, 0x05,                         // cmp  edi, 5
    0x74, 0xb3,                               // je   bend              CLOCK_REALTIME_COARSE
    0xc3,                                     // out: ret
    // 0x66 gettimeofday(rdi: timeval or 0, rsi: timezone or 0)
    0x48, 0x83, 0xec, 0x18,                   // sub  rsp, 24
    0x48, 0x89, 0x7c, 0x24, 0x10,             // mov  [rsp+16], rdi
    0xb8, 0x60, 0x00, 0x00, 0x00,             // mov  eax, 96           gettimeofday
    0x0f, 0x05,                               // syscall
    0x85, 0xc0,                               // test eax, eax
    0x75, 0x3a,                               // jnz  out
    0x48, 0x83, 0x7c, 0x24, 0x10, 0x00,       // cmp  qword [rsp+16], 0
    0x74, 0x32,                               // je   out
    0x31, 0xff,                               // xor  edi, edi
    0x48, 0x89, 0xe6,                         // mov  rsi, rsp
    0xb8, 0xe4, 0x00, 0x00, 0x00,             // mov  eax, 228
    0x0f, 0x05,                               // syscall
    0xe8, 0x85, 0xff, 0xff, 0xff,             // call bend
    0x48, 0x8b, 0x7c, 0x24, 0x10,             // mov  rdi, [rsp+16]
    0x48, 0x8b, 0x04, 0x24,                   // mov  rax, [rsp]
    0x48, 0x89, 0x07,                         // mov  [rdi], rax
    0x48, 0x8b, 0x44, 0x24, 0x08,             // mov  rax, [rsp+8]
    0x31, 0xd2,                               // xor  edx, edx
    0xb9, 0xe8, 0x03, 0x00, 0x00,             // mov  ecx, 1000
    0x48, 0xf7, 0xf1,                         // div  rcx
    0x48, 0x89, 0x47, 0x08,                   // mov  [rdi+8], rax
    0x31, 0xc0,                               // xor  eax, eax
    0x48, 0x83, 0xc4, 0x18,                   // out: add rsp, 24
    0xc3,                                     // ret
    // 0xb9 time(rdi: time_t or 0)
    0x48, 0x83, 0xec, 0x18,                   // sub  rsp, 24
    0x48, 0x89, 0x7c, 0x24, 0x10,             // mov  [rsp+16], rdi
    0x31, 0xff,                               // xor  edi, edi
    0x48, 0x89, 0xe6,                         // mov  rsi, rsp
    0xb8, 0xe4, 0x00, 0x00, 0x00,             // mov  eax, 228
    0x0f, 0x05,                               // syscall
    0xe8, 0x45, 0xff, 0xff, 0xff,             // call bend
    0x48, 0x8b, 0x04, 0x24,                   // mov  rax, [rsp]
    0x48, 0x8b, 0x7c, 0x24, 0x10,             // mov  rdi, [rsp+16]
    0x48, 0x85, 0xff,                         // test rdi, rdi
    0x74, 0x03,                               // jz   out
    0x48, 0x89, 0x07,                         // mov  [rdi], rax
    0x48, 0x83, 0xc4, 0x18,                   // out: add rsp, 24
    0xc3,                                     // ret
];

/// Bytes of the whole piece.
pub(super) const PIECE: usize = NUMBERS + FUNCTIONS.len();

/// The piece for a clock.
pub(super) fn piece(skew: Skew) -> Vec<u8> {
    let numbers = [skew.since_ns, skew.shows_ns, skew.rate];
    let mut piece: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    piece.extend_from_slice(&FUNCTIONS);
    piece
}

/// A jump that stands at `from` and leads to `to`, both counted from the same place.
pub(super) fn jump(from: usize, to: usize) -> [u8; JUMP] {
    let distance = (to as i64 - (from + JUMP) as i64) as i32;
    let mut jump = [0xe9, 0, 0, 0, 0];
    jump[1..].copy_from_slice(&distance.to_le_bytes());
    jump
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_begin_where_they_are_said_to() {
        let piece = piece(Skew {
            since_ns: 1,
            shows_ns: 2,
            rate: 3,
        });
        assert_eq!(piece.len(), PIECE);
        assert_eq!(piece[..NUMBERS][16], 3);
        // Each begins behind the `ret` of the one before.
        for at in [CLOCK_GETTIME, GETTIMEOFDAY, TIME] {
            assert_eq!(piece[at - 1], 0xc3, "{at:#x}");
        }
        assert_eq!(piece[CLOCK_GETTIME..][..2], [0xb8, 0xe4]);
        assert_eq!(piece[GETTIMEOFDAY..][..2], piece[TIME..][..2]);
        assert_eq!(piece.last(), Some(&0xc3));
    }

    #[test]
    fn a_jump_counts_from_its_own_end() {
        assert_eq!(jump(0x10, 0x15), [0xe9, 0, 0, 0, 0]);
        assert_eq!(jump(0x10, 0x14), [0xe9, 0xff, 0xff, 0xff, 0xff]);
    }
}
