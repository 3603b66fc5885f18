defmodule Mlx.Fast.Einsum do
  @moduledoc false

  # Operands are pairs of a tensor and the labels of its axes: letters, and numbers for those that
  # an ellipsis stands for, counted from the last. Products are made of two operands at a time.

  def run(subscripts, tensors) do
    tensors = for tensor <- tensors, do: tensor |> Nx.to_tensor() |> Mlx.Fast.Operand.nameless()
    {inputs, output} = parse(subscripts)
    type = tensors |> Enum.map(& &1.type) |> Enum.reduce(&Nx.Type.merge/2)
    operands = operands(subscripts, inputs, tensors)
    output = output(subscripts, output, inputs, operands)
    sizes = sizes(subscripts, operands)

    operands
    |> Enum.map(fn {x, labels} ->
      x |> Nx.as_type(type) |> diagonals(labels) |> squeezed(sizes)
    end)
    |> contract(output, sizes)
    |> arranged(output)
    |> Nx.as_type(type)
  end

  ## Subscripts

  defp parse(subscripts) do
    unless is_binary(subscripts),
      do:
        raise(
          ArgumentError,
          "Mlx.Fast.einsum takes a string of subscripts, got: #{inspect(subscripts)}"
        )

    case subscripts |> String.replace(" ", "") |> String.split("->") do
      [inputs] -> {terms(subscripts, inputs), nil}
      [inputs, output] -> {terms(subscripts, inputs), term(subscripts, output)}
      _more -> wrong(subscripts, "there is more than one ->")
    end
  end

  defp terms(subscripts, inputs),
    do: for(input <- String.split(inputs, ","), do: term(subscripts, input))

  # The labels, with `:dots` in the place of an ellipsis.
  defp term(subscripts, term) do
    case String.split(term, "...") do
      [letters] -> letters(subscripts, letters)
      [before, rest] -> letters(subscripts, before) ++ [:dots | letters(subscripts, rest)]
      _more -> wrong(subscripts, "#{term} has more than one ellipsis")
    end
  end

  defp letters(subscripts, text) do
    for <<character::utf8 <- text>> do
      if character in ?a..?z or character in ?A..?Z,
        do: <<character>>,
        else: wrong(subscripts, "#{inspect(<<character::utf8>>)} is no letter")
    end
  end

  defp wrong(subscripts, why),
    do: raise(ArgumentError, "Mlx.Fast.einsum of #{inspect(subscripts)}: #{why}")

  ## Labels

  defp operands(subscripts, inputs, tensors) when length(inputs) == length(tensors) do
    for {labels, x} <- Enum.zip(inputs, tensors), do: {x, labelled(subscripts, labels, x)}
  end

  defp operands(subscripts, inputs, tensors) do
    wrong(subscripts, "there are #{length(inputs)} terms for #{length(tensors)} tensors")
  end

  defp labelled(subscripts, labels, %{shape: shape}) do
    rank = tuple_size(shape)
    named = Enum.count(labels, &(&1 != :dots))

    if rank < named or (rank > named and :dots not in labels) do
      wrong(subscripts, "#{named} axes are named for a tensor of shape #{inspect(shape)}")
    end

    Enum.flat_map(labels, fn
      :dots -> Enum.to_list((rank - named)..1//-1)
      label -> [label]
    end)
  end

  defp output(subscripts, nil, _inputs, operands) do
    counts = operands |> Enum.flat_map(&elem(&1, 1)) |> Enum.frequencies()
    once = for {label, 1} <- counts, is_binary(label), do: label
    output(subscripts, [:dots | Enum.sort(once)], [], operands)
  end

  defp output(subscripts, labels, _inputs, operands) do
    found = operands |> Enum.flat_map(&elem(&1, 1)) |> Enum.uniq()
    dots = found |> Enum.filter(&is_integer/1) |> Enum.sort(:desc)
    output = Enum.flat_map(labels, &if(&1 == :dots, do: dots, else: [&1]))

    if output != Enum.uniq(output), do: wrong(subscripts, "the output has an axis twice")

    case output -- found do
      [] -> output
      [label | _] -> wrong(subscripts, "no term has the axis #{label} of the output")
    end
  end

  defp sizes(subscripts, operands) do
    for {%{shape: shape}, labels} <- operands,
        {label, size} <- Enum.zip(labels, Tuple.to_list(shape)),
        reduce: %{} do
      sizes -> Map.update(sizes, label, size, &same(subscripts, label, &1, size))
    end
  end

  defp same(_subscripts, _label, size, size), do: size
  # What an ellipsis stands for broadcasts.
  defp same(_subscripts, label, 1, size) when is_integer(label), do: size
  defp same(_subscripts, label, size, 1) when is_integer(label), do: size

  defp same(subscripts, label, a, b),
    do: wrong(subscripts, "the axis #{label} has #{a} elements in one place and #{b} in another")

  ## Operands

  # An axis for each label but once.
  defp diagonals(x, labels) do
    case labels -- Enum.uniq(labels) do
      [] ->
        {x, labels}

      [label | _] ->
        [first, second] = labels |> places(label) |> Enum.take(2)
        others = Nx.axes(x) -- [first, second]
        x = x |> Nx.transpose(axes: others ++ [first, second]) |> Nx.take_diagonal()
        diagonals(x, Enum.map(others, &Enum.at(labels, &1)) ++ [label])
    end
  end

  defp places(labels, label), do: for({^label, at} <- Enum.with_index(labels), do: at)

  # Without the axes that broadcast.
  defp squeezed({x, labels}, sizes) do
    wide = for {label, at} <- Enum.with_index(labels), elem(x.shape, at) < sizes[label], do: at

    {Nx.squeeze(x, axes: wide),
     Enum.reject(labels, &(elem(x.shape, index(labels, &1)) < sizes[&1]))}
  end

  defp index(labels, label), do: Enum.find_index(labels, &(&1 == label))

  ## Contraction

  defp contract([operand], output, _sizes), do: summed(operand, output)

  defp contract(operands, output, sizes) do
    indexed = Enum.with_index(operands)

    # The cheapest product first, and of those the one with the smallest result.
    {_cost, i, j} =
      for(
        {a, i} <- indexed,
        {b, j} <- indexed,
        i < j,
        do: {cost(a, b, operands, output, sizes), i, j}
      )
      |> Enum.min()

    {a, b} = {Enum.at(operands, i), Enum.at(operands, j)}
    rest = operands |> List.delete_at(j) |> List.delete_at(i)
    kept = kept(rest, output)

    contract(
      [product(summed(a, labels(b) ++ kept), summed(b, labels(a) ++ kept), kept) | rest],
      output,
      sizes
    )
  end

  defp cost(a, b, operands, output, sizes) do
    all = Enum.uniq(labels(a) ++ labels(b))
    kept = kept(operands -- [a, b], output)
    {size(all, sizes), size(Enum.filter(all, &(&1 in kept)), sizes)}
  end

  defp size(labels, sizes), do: labels |> Enum.map(&sizes[&1]) |> Enum.product()
  defp labels({_x, labels}), do: labels
  defp kept(operands, output), do: Enum.flat_map(operands, &labels/1) ++ output

  # Without the axes that nobody else has.
  defp summed({x, labels}, kept) do
    case for {label, at} <- Enum.with_index(labels), label not in kept, do: at do
      [] -> {x, labels}
      axes -> {Nx.sum(x, axes: axes), Enum.filter(labels, &(&1 in kept))}
    end
  end

  defp product({a, a_labels} = left, {b, b_labels} = right, kept) do
    shared = Enum.filter(a_labels, &(&1 in b_labels))
    batch = Enum.filter(shared, &(&1 in kept))

    case shared -- batch do
      [] ->
        all = Enum.uniq(a_labels ++ b_labels)
        {Nx.multiply(spread(left, all), spread(right, all)), all}

      contracted ->
        {free_a, free_b} = {a_labels -- shared, b_labels -- shared}
        a = Nx.transpose(a, axes: axes(a_labels, batch ++ free_a ++ contracted))
        b = Nx.transpose(b, axes: axes(b_labels, batch ++ contracted ++ free_b))
        {dot(a, length(batch), length(free_a), b, length(contracted)), batch ++ free_a ++ free_b}
    end
  end

  defp dot(a, batch, free, b, contracted) do
    batch_axes = Enum.to_list(0..(batch - 1)//1)
    from_a = Enum.to_list((batch + free)..(batch + free + contracted - 1)//1)
    from_b = Enum.to_list(batch..(batch + contracted - 1)//1)
    Nx.dot(a, from_a, batch_axes, b, from_b, batch_axes)
  end

  defp axes(labels, wanted), do: Enum.map(wanted, &index(labels, &1))

  # With an axis of size 1 for each label that it lacks.
  defp spread({x, labels}, all) do
    own = Enum.filter(all, &(&1 in labels))
    x = Nx.transpose(x, axes: axes(labels, own))
    shape = for label <- all, do: if(label in own, do: elem(x.shape, index(own, label)), else: 1)
    Nx.reshape(x, List.to_tuple(shape))
  end

  defp arranged({x, labels}, output), do: Nx.transpose(x, axes: axes(labels, output))
end
