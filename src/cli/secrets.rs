//! Secrets of the process: nobody reads its memory.

/// Has the system write no core of this process, and let no other process of this user read its memory: the
/// secret of a node's key may be in it. A debugger of the superuser still can.
pub(crate) fn hide_memory() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};

        if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
            tracing::debug!(%error, "a core of this process may be written");
        }
    }
}
