defmodule Mlx.Properties.Reduction do
  @moduledoc false

  use ExUnitProperties
  import StreamData
  import Mlx.Generators
  import Mlx.Samples, only: [integers: 0, narrow_floats: 0, reals: 0]

  @all_types Mlx.Samples.types() ++ Mlx.Samples.narrow_floats()

  @cumulative [
    {Nx.Block.CumulativeSum, :cumulative_sum},
    {Nx.Block.CumulativeProduct, :cumulative_product},
    {Nx.Block.CumulativeMax, :cumulative_max},
    {Nx.Block.CumulativeMin, :cumulative_min}
  ]

  def all do
    [sum: sum(), product: product()] ++
      for(op <- [:reduce_max, :reduce_min], do: {op, extreme(op)}) ++
      for(op <- [:all, :any], do: {op, truth(op)}) ++
      for(op <- [:argmax, :argmin], do: {op, position(op)}) ++
      [reduce: reduce()] ++
      for({block, op} <- @cumulative, do: {block, cumulative(op)}) ++
      [{"the extremes of long axes", long_position()}]
  end

  defp sum do
    gen all {x, options} <- reducible(@all_types, specials: true) do
      # Nx.BinaryBackend rounds to a narrow type at each step.
      {&Nx.sum(&1, options), [x], close(x, 16, 64.0)}
    end
  end

  # Factors whose product and whose partial products are neither too large nor too small.
  defp product do
    gen all {x, options} <- reducible(@all_types, between: {0.75, 1.25}) do
      {&Nx.product(&1, options), [x], close(x, 256, 0.0)}
    end
  end

  defp close(%{type: {kind, 8}}, _ulps, scale) when kind in [:f, :f8_e4m3fn],
    do: [ulps: 4, scale: scale, signed_zero: false]

  defp close(_x, ulps, scale), do: [ulps: ulps, scale: scale, signed_zero: false]

  defp extreme(op) do
    gen all {x, options} <- reducible(reals() ++ narrow_floats(), specials: true) do
      {&apply(Nx, op, [&1, options]), [x], signed_zero: false}
    end
  end

  # Nx.BinaryBackend takes a complex zero for true.
  defp truth(op) do
    gen all {x, options} <- reducible(@all_types -- [:c64], specials: true, small: true) do
      {&apply(Nx, op, [&1, options]), [x], []}
    end
  end

  defp position(op) do
    gen all {x, axis} <- with_axis(reals() ++ narrow_floats(), specials: true, small: true),
            # Nx gives each vector a result of another shape than it says.
            axis <- member_of(if(whole?(x), do: [nil, axis], else: [axis])),
            keep_axis <- boolean(),
            tie_break <- member_of([:low, :high]),
            type <- member_of([:s32, :u8, :s64]) do
      options = [axis: axis, keep_axis: keep_axis, tie_break: tie_break, type: type]
      {&apply(Nx, op, [&1, options]), [x], []}
    end
  end

  defp whole?(x), do: Nx.size(x) > 0 and x.vectorized_axes == []

  # Blocks of a long axis are compared first.
  defp long_position do
    gen all op <- member_of([:argmax, :argmin]),
            size <- integer(1000..3000),
            tie_break <- member_of([:low, :high]),
            special <- member_of([:nan, :infinity, :neg_infinity, 9.0, -9.0]),
            places <- list_of(integer(0..(size - 1)), max_length: 3) do
      numbers = for i <- 0..(size - 1), do: if(i in places, do: special, else: rem(i * 7, 5) / 1)
      {&apply(Nx, op, [&1, [tie_break: tie_break]]), [Mlx.Samples.tensor(numbers, :f32)], []}
    end
  end

  @doc false
  # Some steps that start from what there is so far; few are associative or commutative.
  def functions(type) do
    # Long folds would double a float beyond what it can be.
    mixed = if type in integers(), do: :double, else: :halve

    step =
      one_of([
        {member_of([:add, :subtract, :max, :min]), member_of([:element, 1, 3])},
        {member_of([:negate, :abs, :sign]), constant(:nothing)},
        {member_of([mixed, :choose, :forget]), constant(:nothing)}
      ])

    map(list_of(step, min_length: 1, max_length: 4), fn steps ->
      fn x, acc -> Enum.reduce(steps, acc, &step(&1, x, &2)) end
    end)
  end

  defp step({:double, _}, x, acc), do: Nx.subtract(Nx.multiply(acc, 2), x)
  defp step({:halve, _}, x, acc), do: Nx.subtract(Nx.divide(acc, 2), x)
  defp step({:choose, _}, x, acc), do: Nx.select(Nx.less(x, acc), Nx.add(acc, 1), x)
  defp step({:forget, _}, x, _acc), do: x
  defp step({op, :nothing}, _x, acc), do: apply(Nx, op, [acc])
  defp step({op, :element}, x, acc), do: apply(Nx, op, [acc, x])
  defp step({op, number}, _x, acc), do: apply(Nx, op, [acc, number])

  defp reduce do
    gen all type <- member_of([:s32, :s64, :f32, :f64]),
            {x, options} <- reducible([type], small: true),
            # Nx.BinaryBackend can't fold along no axis.
            x = if(Nx.rank(x) == 0, do: Nx.devectorize(x), else: x),
            fun <- functions(type),
            initial <- integer(-2..2) do
      # Nx.BinaryBackend can't change the type on the way.
      initial = Mlx.Samples.tensor(initial, x.type)
      {&Nx.reduce(&1, &2, options, fun), [x, initial], close(x, 64, 64.0)}
    end
  end

  defp cumulative(op) do
    {types, numbers} =
      case op do
        :cumulative_sum -> {@all_types, [specials: true]}
        :cumulative_product -> {@all_types, [between: {0.75, 1.25}]}
        _ -> {reals() ++ narrow_floats(), [specials: true]}
      end

    gen all {x, axis} <- with_axis(types, numbers),
            reverse <- boolean() do
      options = [axis: axis, reverse: reverse]
      # Nx's own definition can't slice what is empty.
      nothing = if Nx.size(x) == 0, do: [oracle: & &1, ways: [:eager]], else: []
      # Nx.BinaryBackend rounds to the type at each step.
      {&apply(Nx, op, [&1, options]), [x], nothing ++ close(x, 16, 64.0)}
    end
  end

  # A tensor, and one of its axes from either end, along which it has elements.
  defp with_axis(types, options) do
    gen all {shape, lead} <- shapes(1),
            rank = tuple_size(shape) - lead,
            axis <- integer(-rank..(rank - 1)),
            x <- emptied(types, shape, lead, [rem(axis + rank, rank)], options) do
      {x, axis}
    end
  end

  defp reducible(types, options) do
    gen all {shape, lead} <- shapes(0),
            rank = tuple_size(shape) - lead,
            chosen <- per_axis(boolean(), rank),
            axes = for({true, axis} <- Enum.with_index(chosen), do: axis),
            all <- boolean(),
            axes = if(all or axes == [], do: Enum.to_list(0..(rank - 1)//1), else: axes),
            x <- emptied(types, shape, lead, axes, options),
            from_end <- boolean(),
            keep_axes <- boolean() do
      given = if from_end, do: Enum.map(Enum.reverse(axes), &(&1 - rank)), else: axes
      {x, [keep_axes: keep_axes] ++ if(length(axes) == rank, do: [], else: [axes: given])}
    end
  end

  # A shape of at least some axes behind those that are to be vectorized.
  defp shapes(least) do
    gen all rank <- integer(least..4),
            lead <- frequency([{5, constant(0)}, {1, constant(min(rank - least, 1))}]),
            shape <- shape(rank, 1..4) do
      {shape, lead}
    end
  end

  # A tensor that now and then has no elements, because of the first axis: those without
  # any along another axis Nx.BinaryBackend can't take apart.
  defp emptied(types, shape, lead, reduced, options) do
    gen all type <- member_of(types),
            one_of_ten <- integer(1..10),
            free = Enum.to_list(lead..(min(tuple_size(shape), 1) - 1)//1) -- reduced,
            shape =
              if(one_of_ten == 1, do: Enum.reduce(free, shape, &put_elem(&2, &1, 0)), else: shape),
            x <- tensor(type, shape, small(type, options)) do
      if lead == 1, do: Nx.vectorize(x, :v), else: x
    end
  end

  defp small(type, options) do
    if type in integers(), do: Keyword.delete(options, :between), else: [small: true] ++ options
  end
end
