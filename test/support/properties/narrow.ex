defmodule Mlx.Properties.Narrow do
  @moduledoc false

  # Nx.BinaryBackend can't compute with parts of bytes. It is asked about the same numbers
  # in s32, and what it gives is wrapped.

  use ExUnitProperties
  import StreamData
  import Mlx.Generators

  @types [:u2, :u4, :s2, :s4]

  @unary [:negate, :bitwise_not, :sign]
  @binary [:add, :subtract, :multiply, :min, :max, :bitwise_and, :bitwise_or, :bitwise_xor] ++
            [:quotient, :remainder]
  @comparisons [:equal, :not_equal, :less, :less_equal, :greater, :greater_equal] ++
                 [:logical_and, :logical_or, :logical_xor]
  def all do
    for(op <- @unary, do: {"#{op} of narrow integers", of_one(op)}) ++
      for(op <- @binary, do: {"#{op} of narrow integers", of_two(op)}) ++
      for(op <- @comparisons, do: {"#{op} of narrow integers", comparison(op)}) ++
      [
        {"narrow integers that are moved", moved()},
        {"what is made of narrow integers", wider()},
        {"narrow integers and others", mixed()}
      ]
  end

  defp of_one(op) do
    gen all type <- member_of(@types), x <- numbers(type, {2, 3}) do
      wrapped(type, &apply(Nx, op, [&1]), [x])
    end
  end

  defp of_two(op) do
    gen all type <- member_of(@types),
            x <- numbers(type, {2, 3}),
            y <- numbers(type, {3}) do
      y = if op in [:quotient, :remainder], do: Nx.select(Nx.equal(y, 0), 1, y), else: y
      wrapped(type, &apply(Nx, op, [&1, &2]), [x, y])
    end
  end

  defp moved do
    gen all type <- member_of(@types), x <- numbers(type, {3, 3}), fun <- member_of(movements()) do
      wrapped(type, fun, [x])
    end
  end

  defp movements do
    [
      &Nx.transpose/1,
      &Nx.reverse/1,
      &Nx.flatten/1,
      &Nx.sort/1,
      &Nx.concatenate([&1, &1]),
      &Nx.stack([&1, &1]),
      &Nx.cumulative_max/1,
      &Nx.reduce_max(&1, axes: [0]),
      &Nx.window_min(&1, {2, 1}, padding: :same)
    ]
  end

  defp widenings do
    [
      &Nx.sum/1,
      &Nx.argmax/1,
      &Nx.all/1,
      &Nx.argsort(&1, axis: 0),
      &Nx.is_nan/1,
      &Nx.logical_not/1
    ]
  end

  defp comparison(op) do
    gen all type <- member_of(@types), x <- numbers(type, {2, 3}), y <- numbers(type, {3}) do
      fun = &apply(Nx, op, [Nx.as_type(&1, type), Nx.as_type(&2, type)])
      {fun, [x, y], oracle: &apply(Nx, op, [&1, &2])}
    end
  end

  defp wider do
    gen all type <- member_of(@types), x <- numbers(type, {3, 3}), fun <- member_of(widenings()) do
      {&(&1 |> Nx.as_type(type) |> fun.() |> Nx.as_type(:s32)), [x],
       oracle: &(&1 |> fun.() |> Nx.as_type(:s32))}
    end
  end

  defp mixed do
    gen all type <- member_of(@types),
            other <- member_of([:s8, :s32, :f16, :f32, :f8]),
            op <- member_of([:add, :multiply, :max, :less]),
            x <- numbers(type, {2, 3}),
            y <- tensor(other, {3}, between: {0, 3}) do
      fun = &apply(Nx, op, [Nx.as_type(&1, type), &2])
      {fun, [x, y], oracle: &apply(Nx, op, [Nx.as_type(&1, :s8), &2])}
    end
  end

  # A function of tensors of a narrow type, which are s32 outside.
  defp wrapped(type, fun, args) do
    narrow = fn args -> Nx.as_type(apply(fun, Enum.map(args, &Nx.as_type(&1, type))), :s32) end
    wide = fn args -> wrap(apply(fun, args), Nx.Type.normalize!(type)) end
    {narrow, [args], oracle: wide}
  end

  defp wrap(x, {kind, bits}) do
    size = 2 ** bits
    rest = Nx.bitwise_and(x, size - 1)

    if kind == :s,
      do: Nx.select(Nx.less(rest, div(size, 2)), rest, Nx.subtract(rest, size)),
      else: rest
  end

  defp numbers(type, shape) do
    {low, high} = Mlx.Samples.bounds(type)

    map(list_of(integer(low..high), length: Tuple.product(shape)), fn numbers ->
      numbers |> Mlx.Samples.tensor(:s32) |> Nx.reshape(shape)
    end)
  end
end
