"""The study: run the numbered notebooks, record what they did and make HTML pages of the results."""
