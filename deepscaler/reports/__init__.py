"""Pages that explain runs: one HTML file each, with its pictures and without anything from outside."""
