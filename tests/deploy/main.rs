//! What is in `deploy/`: whether it is what systemd and Kubernetes understand, whether it gives away no more than is needed,
//! and whether the daemon works with what it gives. Only the last needs root and the kernel.

mod files;
mod image;
mod kubernetes;
mod manifest;
mod pod;
mod systemd;

fn main() {
    let arguments = libtest_mimic::Arguments::from_args();
    let groups = [kubernetes::tests(), systemd::tests(), image::tests(), pod::tests()];
    libtest_mimic::run(&arguments, groups.into_iter().flatten().collect()).exit();
}
