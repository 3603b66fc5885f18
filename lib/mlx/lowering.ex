defmodule Mlx.Lowering do
  @moduledoc false

  # The one place where Nx's operations become rows of the engine's op table. The
  # backend and the compiler both call `lower/3`, with the arguments of the callback
  # of `Nx.Backend` and a `Mlx.Graph` node in the place of each tensor. A family module
  # has `ops/0` and `lower/3`, and for blocks `blocks/0` and `lower_block/3`.

  alias Mlx.Lowering.{Control, Convolution, Creation, Elementwise, Fast, FFT, Indexing, Linalg}
  alias Mlx.Lowering.{Narrow, Quantization, Reduction, Shape, Sort, Window}

  @families [Control, Convolution, Creation, Elementwise, Fast, FFT, Indexing, Linalg] ++
              [Narrow, Quantization, Reduction, Shape, Sort, Window]

  @doc """
  The node of an operation's result.
  """
  def lower(op, %{type: type} = out, args) do
    case Narrow.wide(type) do
      ^type -> lower_wide(op, out, args)
      wide -> op |> lower_wide(%{out | type: wide}, args) |> Narrow.narrow(type)
    end
  end

  for family <- @families, op <- family.ops() do
    defp lower_wide(unquote(op), out, args), do: unquote(family).lower(unquote(op), out, args)
  end

  @doc """
  The nodes of a block of Nx's or of `Mlx.Fast`, or `nil` for one that is run by its own definition.
  """
  def lower_block(block, out, args) do
    case {lower_wide_block(block, wide(out), args), out} do
      {nil, _out} -> nil
      {%Mlx.Graph{} = node, out} -> Narrow.narrow(node, out.type)
      {nodes, outs} -> zip_tuples(nodes, outs, &Narrow.narrow(&1, &2.type))
    end
  end

  for family <- @families,
      function_exported?(family, :blocks, 0),
      block <- family.blocks() do
    defp lower_wide_block(%unquote(block){} = block, out, args) do
      unquote(family).lower_block(block, out, args)
    end
  end

  defp lower_wide_block(_block, _out, _args), do: nil

  defp wide(outs) when is_tuple(outs), do: zip_tuples(outs, outs, fn out, _ -> wide(out) end)
  defp wide(out), do: %{out | type: Narrow.wide(out.type)}

  defp zip_tuples(a, b, fun) do
    List.to_tuple(Enum.zip_with(Tuple.to_list(a), Tuple.to_list(b), fun))
  end

  @ops Enum.flat_map(@families, & &1.ops())

  @doc """
  The operations that can be lowered.
  """
  def ops, do: @ops

  unused = Mlx.Graph.table() -- Enum.flat_map(@families, & &1.rows())

  if unused != [] do
    raise CompileError,
      file: __ENV__.file,
      line: __ENV__.line,
      description: "rows of the op table that no lowering uses: #{inspect(unused)}"
  end
end
