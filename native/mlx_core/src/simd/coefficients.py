"""Prints the polynomials of functions.rs: interpolation at Chebyshev's nodes, with mpmath.

Each line is a name, the largest relative error on the interval, and the coefficients of the
powers of the variable, the lowest first.
"""

from mpmath import atanh, chebyt, cos, erf, erfc, exp, expm1, log, mp, mpf, ncdf, pi, sin, sqrt, taylor

mp.dps = 50


def fit(name, function, low, high, degree):
    count = degree + 1
    middle, half = (mpf(low) + high) / 2, (mpf(high) - low) / 2
    nodes = [cos(pi * (2 * k + 1) / (2 * count)) for k in range(count)]
    values = [function(middle + half * node) for node in nodes]
    # In the variable of the interval from -1 to 1, then in the function's own.
    powers = [mpf(0)] * count
    for n in range(count):
        weight = (1 if n == 0 else 2) * sum(
            value * cos(n * pi * (2 * k + 1) / (2 * count)) for k, value in enumerate(values)
        ) / count
        for power, coefficient in enumerate(taylor(lambda x: chebyt(n, x), 0, n)):
            powers[power] += weight * coefficient
    shifted = [mpf(0)] * count
    for coefficient in reversed(powers):
        shifted = [
            (shifted[power - 1] if power else 0) / half - shifted[power] * middle / half
            for power in range(count)
        ]
        shifted[0] += coefficient
    steps = [low + (mpf(high) - low) * k / 2000 for k in range(2001)]
    value = lambda x: sum(float(c) * x**n for n, c in enumerate(shifted))
    error = max(abs(value(x) / function(x) - 1) for x in steps)
    print(f"{name}: {float(error):.1e}")
    for coefficient in shifted:
        print(f"    {float(coefficient)!r},")


def around(function, limit):
    return lambda x: function(x) if x else mpf(limit)


def erf_of_square(u):
    square = 8 * (u + 1)
    return erf(sqrt(square)) / sqrt(square) if square > mpf(10) ** -40 else 2 / sqrt(pi)


def normal_of_square(u):
    square = 8 * (u + 1)
    return (ncdf(sqrt(square)) - mpf(1) / 2) / sqrt(square) if square else 1 / sqrt(2 * pi)


def scaled_erfc(t):
    x = 4 * (1 + t) / (1 - t)
    return exp(x * x) * erfc(x)


fit("EXPM1", around(lambda r: expm1(r) / r, 1), -log(2) / 2, log(2) / 2, 6)
fit("ERF", erf_of_square, -1, 1, 19)
fit("NORMAL", normal_of_square, -1, 1, 18)
fit("LOG", around(lambda z: atanh(sqrt(z)) / sqrt(z) * 2, 2), 0, (3 - 2 * sqrt(mpf(2))) ** 2, 4)
fit("SIN", around(lambda z: sin(sqrt(z)) / sqrt(z), 1), 0, (pi / 4) ** 2, 4)
fit("COS", lambda z: cos(sqrt(z)), 0, (pi / 4) ** 2, 4)
fit("ERFC", scaled_erfc, -1, mpf(3) / 7 + mpf("0.01"), 12)
