defmodule Mlx.Lowering.Elementwise do
  @moduledoc false

  use Mlx.Graph
  import Mlx.Lowering.Creation, only: [full: 2, full: 3]
  import Mlx.Lowering.Shape, only: [broadcast_to: 2, cast: 2]

  # Computed in the type of the result, which is a float type.
  @float [:exp, :expm1, :log, :log1p, :sigmoid, :cos, :sin, :tan, :cosh, :sinh, :tanh] ++
           [:acosh, :asinh, :atanh, :sqrt, :rsqrt, :cbrt, :erf, :erfc, :erf_inv] ++
           [:acos, :asin, :atan, :conjugate]

  # Computed in the type of the operand, which is that of the result.
  @same [:ceil, :floor, :negate, :round, :sign, :bitwise_not]

  # The bits of the operand as an unsigned integer.
  @bits [:count_leading_zeros, :population_count]

  @tests [:is_nan, :is_infinity]

  # Both operands in the type of the result.
  @arithmetic [:add, :subtract, :multiply, :divide, :atan2] ++
                [:bitwise_and, :bitwise_or, :bitwise_xor]

  # Where a wide unsigned and a signed operand meet, no type holds both.
  @ordered [:min, :max, :quotient, :remainder]

  @comparisons [:equal, :not_equal, :greater, :less, :greater_equal, :less_equal]

  @logical [:logical_and, :logical_or, :logical_xor]

  # Rows that are one operation of MLX's.
  @plain [:add, :subtract, :multiply, :divide, :max, :min, :select] ++
           [:bitwise_and, :bitwise_or, :bitwise_xor | @comparisons]

  @ops @float ++
         @same ++
         @bits ++
         @tests ++
         @arithmetic ++
         @ordered ++
         @comparisons ++
         @logical ++
         [:abs, :real, :imag, :pow, :left_shift, :right_shift, :select, :clip]

  def ops, do: @ops

  @doc """
  The same node with constants that are numbers in the shape of the result, which MLX gives
  them at each run otherwise. Other rows, and nodes of several results, stay as they are.
  """
  def spread(%{row: :cast, operands: [x]} = node), do: %{node | operands: [spread(x)]}

  def spread(%{row: row, operands: operands, shape: shape} = node)
      when row in @plain and shape != {},
      do: %{node | operands: Enum.map(operands, &spread(&1, shape))}

  def spread(other), do: other

  defp spread(%{shape: {}} = operand, shape) do
    spread = broadcast_to(operand, shape)
    if constant?(spread), do: spread, else: operand
  end

  defp spread(operand, _shape), do: operand

  for name <- @float do
    def lower(unquote(name), out, [x]) do
      op(unquote(name), [cast(x, out.type)], out.type, out.shape)
    end
  end

  for name <- @same do
    def lower(unquote(name), out, [x]), do: op(unquote(name), [x], out.type, out.shape)
  end

  for name <- @bits do
    def lower(unquote(name), %{type: {_, size}} = out, [x]) do
      op(unquote(name), [x], {:u, size}, out.shape) |> cast(out.type)
    end
  end

  for name <- @tests do
    def lower(unquote(name), out, [x]) do
      op(unquote(name), [x], :bool, out.shape) |> cast(out.type)
    end
  end

  for name <- @arithmetic do
    def lower(unquote(name), out, [a, b]) do
      op(unquote(name), [cast(a, out.type), cast(b, out.type)], out.type, out.shape)
    end
  end

  for name <- @ordered do
    def lower(unquote(name), out, [%{type: {:u, 64}} = a, %{type: {:s, _}} = b]) do
      mixed(unquote(name), out, a, b)
    end

    def lower(unquote(name), out, [%{type: {:s, _}} = a, %{type: {:u, 64}} = b]) do
      mixed(unquote(name), out, a, b)
    end

    def lower(unquote(name), out, [a, b]) do
      op(unquote(name), [cast(a, out.type), cast(b, out.type)], out.type, out.shape)
    end
  end

  for name <- @comparisons do
    def lower(unquote(name), out, [a, b]) do
      unquote(name) |> compare(a, b, out.shape) |> cast(out.type)
    end
  end

  for name <- @logical do
    def lower(unquote(name), out, [a, b]) do
      op(unquote(name), [a, b], :bool, out.shape) |> cast(out.type)
    end
  end

  def lower(:abs, out, [x]), do: op(:abs, [x], out.type, out.shape)

  def lower(:real, out, [%{type: {:c, 64}} = x]), do: op(:real, [x], out.type, out.shape)
  def lower(:real, out, [x]), do: cast(x, out.type)

  def lower(:imag, out, [%{type: {:c, 64}} = x]), do: op(:imag, [x], out.type, out.shape)
  def lower(:imag, out, [_x]), do: full(0, out.type, out.shape)

  def lower(:pow, %{type: {kind, _}} = out, [a, b]) when kind in [:s, :u] do
    op(:integer_power, [cast(a, out.type), cast(b, out.type)], out.type, out.shape)
  end

  def lower(:pow, out, [a, b]) do
    op(:power, [cast(a, out.type), cast(b, out.type)], out.type, out.shape)
  end

  def lower(:left_shift, out, [a, b]) do
    {fits, count} = shift_count(b, out.type)
    shifted = op(:left_shift, [cast(a, out.type), count], out.type, out.shape)
    op(:select, [fits, shifted, full(0, out.type)], out.type, out.shape)
  end

  # The type of the result is signed where the count is, but the number has no sign.
  def lower(:right_shift, %{type: {:s, _}} = out, [%{type: {:u, 64}} = a, b]) do
    lower(:right_shift, %{out | type: {:u, 64}}, [a, b]) |> cast(out.type)
  end

  def lower(:right_shift, %{type: {kind, _}} = out, [a, b]) do
    {fits, count} = shift_count(b, out.type)
    shifted = op(:right_shift, [cast(a, out.type), count], out.type, out.shape)

    case kind do
      # Shifting by the width less one leaves only the sign, as further shifts would.
      :s -> shifted
      :u -> op(:select, [fits, shifted, full(0, out.type)], out.type, out.shape)
    end
  end

  def lower(:select, out, [condition, a, b]) do
    operands = [uncast(condition), cast(a, out.type), cast(b, out.type)]
    op(:select, operands, out.type, out.shape)
  end

  def lower(:clip, %{type: {:s, _}} = out, [x, low, high] = operands) do
    if Enum.any?(operands, &(&1.type == {:u, 64})),
      do: clip_mixed(out, x, low, high),
      else: clip(out, x, low, high)
  end

  def lower(:clip, out, [x, low, high]), do: clip(out, x, low, high)

  def blocks, do: [Nx.Block.LogicalNot, Nx.Block.Phase, Nx.Block.AllClose]

  # A condition is a byte for Nx and a boolean again for MLX.
  defp uncast(%{row: :cast, operands: [%{type: :bool} = condition]}), do: condition
  defp uncast(condition), do: condition

  defp clip(out, x, low, high) do
    raised = op(:max, [cast(x, out.type), cast(low, out.type)], out.type, out.shape)
    op(:min, [raised, cast(high, out.type)], out.type, out.shape)
  end

  def lower_block(%Nx.Block.LogicalNot{}, out, [x]) do
    op(:logical_not, [x], :bool, out.shape) |> cast(out.type)
  end

  def lower_block(%Nx.Block.Phase{}, out, [x]) do
    parts = [lower(:imag, out, [x]), lower(:real, out, [x])]
    op(:atan2, parts, out.type, out.shape)
  end

  def lower_block(%Nx.Block.AllClose{} = block, out, [a, b]) do
    names = &List.duplicate(nil, tuple_size(&1.shape))
    {shape, _} = Nx.Shape.binary_broadcast(a.shape, names.(a), b.shape, names.(b))

    close =
      if Nx.Type.integer?(a.type) and Nx.Type.integer?(b.type),
        do: integers_close(a, b, shape, block),
        else: floats_close(a, b, shape, block)

    axes = Enum.to_list(0..(tuple_size(shape) - 1)//1)

    op(:all, [close], [axes, false], :bool, {}) |> cast(out.type)
  end

  # Nx compares integers as f64, which not every device has.
  defp integers_close(a, b, shape, %{rtol: rtol, atol: atol}) do
    op(:within, [distance(a, b, shape), b], [rtol, atol], :bool, shape)
  end

  defp floats_close(a, b, shape, %{rtol: rtol, atol: atol, equal_nan: equal_nan}) do
    distance = distance(a, b, shape)
    type = b.type |> Nx.Type.to_real() |> Nx.Type.to_floating()
    size = magnitude(b)
    bound = rtol |> scalar(:multiply, size, type) |> then(&scalar(atol, :add, &1, type))
    near = test(:less_equal, [distance, bound], shape)

    # The distance of infinities is NaN, or infinite and within an infinite bound.
    infinite = test(:logical_or, [test(:is_infinity, [a]), test(:is_infinity, [b])], shape)
    same = test(:equal, [a, b], shape)
    close = op(:select, [infinite, same, near], :bool, shape)

    if equal_nan do
      nans = test(:logical_and, [test(:is_nan, [a]), test(:is_nan, [b])], shape)
      op(:logical_or, [nans, close], :bool, shape)
    else
      close
    end
  end

  defp distance(a, b, shape) do
    type = Nx.Type.merge(a.type, b.type)
    difference = lower(:subtract, %{type: type, shape: shape}, [a, b])
    magnitude(difference)
  end

  defp magnitude(%{type: {:c, _} = type} = x), do: op(:abs, [x], Nx.Type.to_real(type), x.shape)
  defp magnitude(x), do: op(:abs, [x], x.type, x.shape)

  # Nx makes an f32 of a number and rounds the result to the type of the tensor.
  defp scalar(number, row, x, type) do
    wide = Nx.Type.merge(type, {:f, 32})
    out = %{type: wide, shape: x.shape}
    lower(row, out, [full(number, {:f, 32}), x]) |> cast(type)
  end

  defp test(row, [x | _] = operands, shape \\ nil) do
    lower(row, %{type: :bool, shape: shape || x.shape}, operands)
  end

  for {name, mirrored, with_negative} <- [
        {:equal, :equal, false},
        {:not_equal, :not_equal, true},
        {:less, :greater, true},
        {:less_equal, :greater_equal, true},
        {:greater, :less, false},
        {:greater_equal, :less_equal, false}
      ] do
    # The answer for a negative number is known; others are compared as unsigned ones.
    defp compare(unquote(name), %{type: {:s, _}} = a, %{type: {:u, 64}} = b, shape) do
      as_unsigned = op(unquote(name), [cast(a, {:u, 64}), b], :bool, shape)
      negative = op(:less, [a, full(0, a.type)], :bool, a.shape)
      known = full(unquote(if with_negative, do: 1, else: 0), {:u, 8})
      op(:select, [negative, known, cast(as_unsigned, {:u, 8})], {:u, 8}, shape)
    end

    defp compare(unquote(name), %{type: {:u, 64}} = a, %{type: {:s, _}} = b, shape) do
      compare(unquote(mirrored), b, a, shape)
    end

    defp compare(unquote(name), a, b, shape) do
      type = Nx.Type.merge(a.type, b.type)
      op(unquote(name), [cast(a, type), cast(b, type)], :bool, shape)
    end
  end

  defp clip_mixed(out, x, low, high) do
    raised = mixed(:max, out, x, low)
    bounds_crossed = compare(:greater, low, high, {})
    above = compare(:greater, x, high, out.shape)
    above = op(:logical_or, [above, bounds_crossed], :bool, out.shape)
    op(:select, [above, cast(high, out.type), raised], out.type, out.shape)
  end

  # The result of the true integers, wrapped to the type of the result.
  defp mixed(:quotient, out, a, b) do
    magnitude = op(:quotient, [unsigned(a), unsigned(b)], {:u, 64}, out.shape)
    negated = op(:negate, [magnitude], {:u, 64}, out.shape)
    negative = op(:logical_xor, [negative(a), negative(b)], :bool, out.shape)
    op(:select, [negative, negated, magnitude], {:u, 64}, out.shape) |> cast(out.type)
  end

  defp mixed(:remainder, out, a, b) do
    magnitude = op(:remainder, [unsigned(a), unsigned(b)], {:u, 64}, out.shape)
    negated = op(:negate, [magnitude], {:u, 64}, out.shape)
    op(:select, [negative(a), negated, magnitude], {:u, 64}, out.shape) |> cast(out.type)
  end

  defp mixed(name, out, a, b) do
    first = compare(%{min: :less, max: :greater}[name], a, b, out.shape)
    op(:select, [first, cast(a, out.type), cast(b, out.type)], out.type, out.shape)
  end

  defp negative(%{type: {:u, _}} = x), do: op(:less, [x, x], :bool, x.shape)
  defp negative(x), do: op(:less, [x, full(0, x.type)], :bool, x.shape)

  defp unsigned(%{type: {:u, 64}} = x), do: x

  defp unsigned(x) do
    wide = cast(x, {:s, 64})
    op(:abs, [wide], {:s, 64}, x.shape) |> cast({:u, 64})
  end

  # Processors disagree about counts outside the width. As an unsigned number a
  # negative count is larger than any width, too.
  defp shift_count(count, {_, bits} = type) do
    shape = count.shape
    count = cast(count, {:u, 64})
    fits = op(:less, [count, full(bits, {:u, 64})], :bool, shape)
    count = op(:min, [count, full(bits - 1, {:u, 64})], {:u, 64}, shape)
    {fits, cast(count, type)}
  end
end
