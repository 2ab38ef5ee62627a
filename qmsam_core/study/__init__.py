"""The study: what runs the numbered notebooks, records what they did, and makes pages of it."""
