"""Four numbers of every step, recorded or not: loss, rate, |g_t|^2, |x_{t+1} - x_t|^2."""
