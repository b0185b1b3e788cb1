"""AutoMathCritique (section 3): flawed paths, their annotation, the Monte-Carlo filter."""
