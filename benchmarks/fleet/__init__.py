"""A fleet of simulated engines behind real front-ends, on a simulated clock."""
