//! Training: epochs over a dataset, from initial weights to the best ones.
