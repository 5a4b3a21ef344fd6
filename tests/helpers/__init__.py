"""What several test files share: fakes, samples and where things lie."""
