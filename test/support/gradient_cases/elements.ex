defmodule Mlx.GradientCases.Elements do
  @moduledoc false

  import Mlx.Samples, only: [tensor: 2]

  @anywhere [[0.5, -1.25, 2.0], [1.5, -0.75, 0.25]]
  @positive [[0.5, 1.25, 2.0], [1.5, 0.75, 0.25]]
  @above_one [[1.375, 2.3125, 3.125], [4.5, 1.625, 1.1875]]
  @inside_one [[0.5, -0.25, 0.125], [-0.5, 0.75, -0.625]]
  @close [ulps: 64, scale: 1.0, signed_zero: false]

  @unary [
    {[:exp, :expm1, :sigmoid, :cos, :sin, :tan, :cosh, :sinh, :tanh], @anywhere},
    {[:asinh, :atan, :cbrt, :erf, :erfc, :abs, :negate, :conjugate], @anywhere},
    {[:log, :log1p, :sqrt, :rsqrt], @positive},
    {[:acosh], @above_one},
    {[:acos, :asin, :atanh, :erf_inv], @inside_one}
  ]

  @binary [:add, :subtract, :multiply, :divide, :pow, :atan2, :remainder, :min, :max]

  # Between the jumps these are constant.
  @steps [:ceil, :floor, :round, :sign, :is_nan, :is_infinity]
  @compared [:equal, :not_equal, :greater, :less, :greater_equal, :less_equal] ++
              [:logical_and, :logical_or, :logical_xor]
  @integer [:bitwise_and, :bitwise_or, :bitwise_xor, :left_shift, :right_shift]
  @bits [:bitwise_not, :population_count, :count_leading_zeros]

  def all do
    unary() ++ binary() ++ constant() ++ chosen() ++ complex() ++ composed()
  end

  defp unary do
    for {ops, numbers} <- @unary, op <- ops do
      # Of an f64 it is a c128, which MLX lacks, and of an f32 differences are coarse.
      options = if op == :conjugate, do: [types: [:f32], step: 0.25], else: []
      row(op, "", &apply(Nx, op, [&1]), [x(numbers)], options)
    end
  end

  defp binary do
    for op <- @binary,
        {description, a, b} <- [
          {"of matrices", @positive, @above_one},
          {"of a matrix and a row", @positive, hd(@above_one)},
          {"of a column and a row", [[0.5], [1.75]], [1.25, 3.0, 0.375]},
          {"of a scalar and a matrix", 2.125, @positive}
        ] do
      row(op, description, &apply(Nx, op, [&1, &2]), [x(a), x(b)])
    end ++
      [
        row(:multiply, "by itself", &Nx.multiply(&1, &1), [x(@anywhere)]),
        row(:add, "to itself", &Nx.add(&1, &1), [x(@anywhere)]),
        row(:pow, "to a number", &Nx.pow(&1, 3), [x(@anywhere)]),
        row(:divide, "of a number", &Nx.divide(1, &1), [x(@anywhere)]),
        row(:max, "with a number", &Nx.max(&1, 0.125), [x(@anywhere)])
      ]
  end

  defp constant do
    for(op <- @steps, do: row(op, "", &apply(Nx, op, [&1]), [x([[0.625, -1.25, 2.25]])])) ++
      for op <- @compared do
        row(op, "", &apply(Nx, op, [&1, &2]), [x(@anywhere), x(@above_one)])
      end ++
      for op <- @integer do
        row(op, "", &apply(Nx, op, [integer(&1), 3]), [x(@positive)])
      end ++
      for(op <- @bits, do: row(op, "", &apply(Nx, op, [integer(&1)]), [x(@anywhere)])) ++
      [
        {{Nx.Block.AllClose, ""}, &Nx.all_close/2, [x(@anywhere), x(@positive)], []},
        {{:constant, ""}, &Nx.add(Nx.broadcast(2.5, &1), &1), [x(@anywhere)], []},
        {{:iota, ""}, &Nx.multiply(Nx.iota({2, 3}), &1), [x(@anywhere)], []},
        {{:eye, ""}, &Nx.dot(Nx.eye(2), &1), [x(@anywhere)], []}
      ]
  end

  # Away from where the bits of the integer change.
  defp integer(x), do: x |> Nx.add(0.125) |> Nx.multiply(3) |> Nx.as_type(:s32)

  defp chosen do
    condition = tensor([[1, 0, 1], [0, 0, 1]], :u8)

    [
      row(:select, "", &Nx.select/3, [condition, x(@anywhere), x(@above_one)]),
      row(:select, "with a scalar", &Nx.select/3, [condition, x(@anywhere), x(3.5)]),
      row(:select, "of what it is of", &Nx.select(Nx.greater(&1, 0), Nx.exp(&1), &1), [
        x(@anywhere)
      ]),
      row(:clip, "", &Nx.clip/3, [x(@anywhere), x(-1.0), x(1.75)]),
      row(:clip, "to numbers", &Nx.clip(&1, -1.0, 1.75), [x(@anywhere)])
    ]
  end

  # Real functions that take a way through complex numbers, of which f64 would be c128.
  defp complex do
    z = &Nx.complex(&1, Nx.multiply(&1, 2))
    square = &Nx.multiply(z.(&1), z.(&1))
    options = [types: [:f32], step: 2.0 ** -7]
    lost = "Nx takes the imaginary part of a real gradient, which is zero"

    for {op, description, fun, more} <- [
          {Nx.Block.Phase, "", &Nx.phase/1, []},
          {:abs, "of complex numbers", &Nx.abs(z.(&1)), []},
          {:exp, "of complex numbers", &Nx.real(Nx.exp(z.(&1))), []},
          {:multiply, "of complex numbers", &Nx.real(square.(&1)), []},
          {:real, "", &Nx.real(square.(&1)), []},
          {:imag, "", &Nx.imag(square.(&1)), [nx: lost]}
        ] do
      row(op, description, fun, [x(@anywhere)], more ++ options)
    end
  end

  defp composed do
    [
      row(:divide, "in a softmax", &softmax/1, [x(@anywhere)]),
      row(:log, "in a sum of exponentials", &Nx.logsumexp/1, [x(@anywhere)]),
      row(:erf, "in a GELU", &Nx.multiply(&1, Nx.add(1, Nx.erf(Nx.divide(&1, 1.5)))), [
        x(@anywhere)
      ]),
      row(:rsqrt, "in a normalization", &normalized/1, [x(@anywhere)])
    ]
  end

  defp softmax(x) do
    exponentials = Nx.exp(Nx.subtract(x, Nx.reduce_max(x, axes: [1], keep_axes: true)))
    Nx.divide(exponentials, Nx.sum(exponentials, axes: [1], keep_axes: true))
  end

  defp normalized(x) do
    centred = Nx.subtract(x, Nx.mean(x, axes: [1], keep_axes: true))
    variance = Nx.mean(Nx.multiply(centred, centred), axes: [1], keep_axes: true)
    Nx.multiply(centred, Nx.rsqrt(Nx.add(variance, 0.125)))
  end

  defp row(op, description, fun, args, options \\ []),
    do: {{op, description}, fun, args, [close: @close] ++ options}

  defp x(numbers), do: tensor(numbers, :f32)
end
