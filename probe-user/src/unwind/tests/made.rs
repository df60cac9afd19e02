//! Files made for one purpose each.
