defmodule Mlx.Lowering.Elementwise do
  @moduledoc false

  use Mlx.Graph
  import Mlx.Lowering.Creation, only: [full: 2, full: 3]
  import Mlx.Lowering.Shape, only: [cast: 2]

  # Computed in the type of the result, which is a float type.
  @float [:exp, :expm1, :log, :log1p, :sigmoid, :cos, :sin, :tan, :cosh, :sinh, :tanh] ++
           [:acosh, :asinh, :atanh, :sqrt, :rsqrt, :cbrt, :erf, :erf_inv] ++
           [:acos, :asin, :atan, :conjugate]

  # Computed in the type of the operand, which is that of the result.
  @same [:ceil, :floor, :negate, :round, :sign, :bitwise_not]

  # The bits of the operand as an unsigned integer.
  @bits [:count_leading_zeros, :population_count]

  @tests [:is_nan, :is_infinity]

  # Both operands in the type of the result.
  @arithmetic [:add, :subtract, :multiply, :divide, :atan2, :min, :max, :quotient] ++
                [:remainder, :bitwise_and, :bitwise_or, :bitwise_xor]

  @comparisons [:equal, :not_equal, :greater, :less, :greater_equal, :less_equal]

  @logical [:logical_and, :logical_or, :logical_xor]

  @ops @float ++
         @same ++
         @bits ++
         @tests ++
         @arithmetic ++
         @comparisons ++
         @logical ++
         [:abs, :real, :imag, :erfc, :pow, :left_shift, :right_shift, :select, :clip]

  def ops, do: @ops

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

  for name <- @comparisons do
    def lower(unquote(name), out, [a, b]) do
      type = Nx.Type.merge(a.type, b.type)
      op(unquote(name), [cast(a, type), cast(b, type)], :bool, out.shape) |> cast(out.type)
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

  def lower(:erfc, out, [x]) do
    erf = op(:erf, [cast(x, out.type)], out.type, out.shape)
    op(:subtract, [full(1, out.type), erf], out.type, out.shape)
  end

  def lower(:pow, out, [a, b]) do
    op(:power, [cast(a, out.type), cast(b, out.type)], out.type, out.shape)
  end

  def lower(:left_shift, out, [a, b]) do
    {fits, count} = shift_count(b, out.type)
    shifted = op(:left_shift, [cast(a, out.type), count], out.type, out.shape)
    op(:select, [fits, shifted, full(0, out.type)], out.type, out.shape)
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
    op(:select, [condition, cast(a, out.type), cast(b, out.type)], out.type, out.shape)
  end

  def lower(:clip, out, [x, low, high]) do
    raised = op(:max, [cast(x, out.type), cast(low, out.type)], out.type, out.shape)
    op(:min, [raised, cast(high, out.type)], out.type, out.shape)
  end

  def blocks, do: [Nx.Block.LogicalNot]

  def lower_block(%Nx.Block.LogicalNot{}, out, [x]) do
    op(:logical_not, [x], :bool, out.shape) |> cast(out.type)
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
