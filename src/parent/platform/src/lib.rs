//! What a child finds around its processors.
