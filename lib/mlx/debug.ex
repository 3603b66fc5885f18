defmodule Mlx.Debug do
  @moduledoc false

  # The checks of `config :mlx, debug_bounds_check:` and `debug_detect_nan_inf:`. A check
  # is nodes and a function that says what their values tell, so that it works for
  # tensors and inside of a program. Without the settings the macros leave no trace.

  alias Mlx.{Dispatch, Graph, Lowering}

  @creations [:constant, :iota, :eye]

  @type check :: {[Graph.t()], ([binary] -> String.t() | nil)}

  @doc """
  Raises if an operation has an index for which there is no place.
  """
  defmacro check_bounds(op, nodes, tensors, device) do
    if Application.compile_env(__CALLER__, :mlx, :debug_bounds_check, false) do
      quote do
        unquote(__MODULE__).bounds!(unquote_splicing([op, nodes, tensors, device]))
      end
    else
      :ok
    end
  end

  @doc """
  Raises if the results of an operation have NaN or infinities that its operands lack.
  Returns the results.
  """
  defmacro check_finite(results, op, tensors, device) do
    if Application.compile_env(__CALLER__, :mlx, :debug_detect_nan_inf, false) do
      quote do
        unquote(__MODULE__).finite!(unquote_splicing([results, op, tensors, device]))
      end
    else
      results
    end
  end

  @doc """
  Which checks the settings ask for, when the caller is compiled.
  """
  defmacro settings do
    bounds = Application.compile_env(__CALLER__, :mlx, :debug_bounds_check, false)
    finite = Application.compile_env(__CALLER__, :mlx, :debug_detect_nan_inf, false)
    if(bounds, do: [:bounds], else: []) ++ if(finite, do: [:finite], else: [])
  end

  @doc """
  The checks of an operation that settings ask for. Its arguments are nodes, and so are
  its results.
  """
  @spec checks([:bounds | :finite], atom | struct, list, [Graph.t()]) :: [check]
  def checks(settings, op, args, results) do
    operands = for %Graph{} = node <- List.flatten(args), do: node

    settings
    |> Enum.map(fn
      :bounds -> bounds(op, args)
      :finite -> if op not in @creations, do: finite(results, operands)
    end)
    |> Enum.reject(&is_nil/1)
  end

  def bounds!(op, nodes, tensors, device) do
    op |> bounds(nodes) |> judge!(op, tensors, tensors, device)
  end

  # What was asked for is not computed.
  def finite!(results, op, _tensors, _device) when op in @creations, do: results

  def finite!(results, op, tensors, device) do
    outs = if is_tuple(results), do: Tuple.to_list(results), else: [results]
    all = Enum.map(outs ++ tensors, &Dispatch.dense/1)
    nodes = Enum.with_index(all, fn tensor, at -> Dispatch.input(tensor, at, device) end)
    {outs, inputs} = Enum.split(nodes, length(outs))
    outs |> finite(inputs) |> judge!(op, all, tensors, device)
    results
  end

  defp judge!(nil, _op, _inputs, _operands, _device), do: :ok

  defp judge!({nodes, tell}, op, inputs, operands, device) do
    message = nodes |> Dispatch.values(inputs, device) |> tell.()
    if message, do: raise(error(op, operands, message))
  end

  @doc """
  The exception of an operation, or of a block, that does not pass a check.
  """
  def error(op, operands, message) do
    operands = for %{type: type, shape: shape} <- operands, do: {Nx.Type.to_string(type), shape}
    names = Enum.map_join(operands, ", ", fn {type, shape} -> type <> inspect(shape) end)
    op = name(op)
    message = "#{op}(#{names}): #{message}"
    %Mlx.Error{kind: :value, op: op, operands: operands, message: message}
  end

  defp name(%block{}), do: block |> Module.split() |> List.last() |> Macro.underscore()
  defp name(op), do: Atom.to_string(op)

  @doc """
  The check of an operation's indices, or `nil` if it has none that Nx wants in bounds.
  Its arguments are those of `Mlx.Lowering.lower/3` or `Mlx.Lowering.lower_block/3`.
  """
  @spec bounds(atom | struct, list) :: check | nil
  def bounds(:gather, [x, indices, opts]), do: columns(x, indices, opts[:axes])

  def bounds(op, [x, indices, _updates, opts]) when op in [:indexed_add, :indexed_put],
    do: columns(x, indices, opts[:axes])

  def bounds(%block{axis: axis}, [x, indices])
      when block in [Nx.Block.Take, Nx.Block.TakeAlongAxis],
      do: within(indices, nil, [{axis, elem(x.shape, axis)}])

  def bounds(_op, _args), do: nil

  # The last axis of the indices has a column for each of the axes.
  defp columns(x, indices, axes) do
    last = tuple_size(indices.shape) - 1
    within(indices, Enum.to_list(0..(last - 1)//1), Enum.map(axes, &{&1, elem(x.shape, &1)}))
  end

  defp within(%{shape: shape, type: type} = indices, over, axes) do
    if Tuple.product(shape) > 0 do
      out = %{type: type, shape: if(over, do: {length(axes)}, else: {})}

      extremes =
        for op <- [:reduce_min, :reduce_max],
            do: Lowering.lower(op, out, [indices, [axes: over, keep_axes: false]])

      {extremes, &outside(&1, type, axes)}
    end
  end

  defp outside(extremes, type, axes) do
    rows = Enum.map(extremes, &integers(&1, type))

    Enum.find_value(rows, fn row ->
      Enum.find_value(Enum.zip(row, axes), fn {index, {axis, size}} ->
        if index not in 0..(size - 1)//1,
          do: "index #{index} is out of bounds for axis #{axis}, which has #{size} places"
      end)
    end)
  end

  defp integers(binary, {:s, bits}), do: for(<<i::signed-native-size(bits) <- binary>>, do: i)
  defp integers(binary, {:u, bits}), do: for(<<i::native-size(bits) <- binary>>, do: i)

  @doc """
  The check that results have no NaN and no infinity unless an operand has, or `nil` if
  they have a type without.
  """
  @spec finite([Graph.t()], [Graph.t()]) :: check | nil
  def finite(outs, operands) do
    with [_ | _] = outs <- Enum.filter(outs, &float?/1) do
      operands = Enum.filter(operands, &float?/1)
      tests = [:is_nan, :is_infinity]
      {Enum.map(tests, &only_in(outs, operands, &1)), &made/1}
    else
      [] -> nil
    end
  end

  defp float?(%{type: {kind, _}}), do: kind not in [:u, :s]
  defp float?(_bool), do: false

  defp only_in(outs, [], test), do: any(outs, test)

  defp only_in(outs, operands, test),
    do: scalar(:greater, [any(outs, test), any(operands, test)])

  defp any(nodes, test) do
    nodes
    |> Enum.map(fn node ->
      tests = Lowering.lower(test, %{type: {:u, 8}, shape: node.shape}, [node])
      scalar(:any, [tests, [axes: nil, keep_axes: false]])
    end)
    |> Enum.reduce(&scalar(:logical_or, [&1, &2]))
  end

  defp scalar(op, args), do: Lowering.lower(op, %{type: {:u, 8}, shape: {}}, args)

  defp made([nan, infinity]) do
    case for({<<1>>, what} <- [{nan, "NaN"}, {infinity, "an infinity"}], do: what) do
      [] -> nil
      found -> "the result has #{Enum.join(found, " and ")}, which the operands have not"
    end
  end
end
