//! The zklab binary.

fn main() -> std::process::ExitCode {
    zklab::command::main()
}
