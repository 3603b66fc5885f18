defmodule Mlx.Compiler.Closure do
  @moduledoc false

  # What functions are known by in the cache. One that has captured much, such as a model of
  # Axon's, has a name, because to hash and compare all of it takes longer than many a program.

  @table __MODULE__
  @limit 1024

  # Bytes of what is captured that are worth a name.
  @much 2048

  @doc """
  Makes the table of names, which belongs to the calling process.
  """
  def start, do: :ets.new(@table, [:named_table, :public, read_concurrency: true])

  @doc """
  Forgets the names. None is ever given again.
  """
  def clear, do: :ets.delete_all_objects(@table)

  @doc """
  A term that is the same for functions that are equal, and for no others.
  """
  def key(fun) do
    # The same term as the last time is seen to be that at once.
    case Process.get(@table) do
      {^fun, name} -> name
      _ -> fun |> identity() |> named(fun)
    end
  end

  defp named(identity, fun) do
    {:env, env} = Function.info(fun, :env)

    if much?(identity) and not tensors?(env) do
      name = name(identity)
      Process.put(@table, {fun, name})
      name
    else
      identity
    end
  end

  defp much?(identity), do: :erlang.external_size(identity) > @much

  defp name(identity) do
    case :ets.lookup(@table, identity) do
      [{_identity, name}] ->
        name

      [] ->
        if :ets.info(@table, :size) >= @limit, do: clear()
        name = make_ref()
        if :ets.insert_new(@table, {identity, name}), do: name, else: name(identity)
    end
  end

  # What a process remembers lives on, which tensors should not.
  defp tensors?(%Nx.Tensor{data: %Nx.TemplateBackend{}}), do: false
  defp tensors?(%Nx.Tensor{}), do: true
  defp tensors?([head | tail]), do: tensors?(head) or tensors?(tail)
  defp tensors?(term) when is_tuple(term), do: term |> Tuple.to_list() |> tensors?()
  defp tensors?(%{} = term), do: term |> :maps.values() |> tensors?()

  defp tensors?(term) when is_function(term) do
    {:env, env} = Function.info(term, :env)
    tensors?(env)
  end

  defp tensors?(_term), do: false

  # An expression that a function has captured is known by its name. As a term it would be
  # gone through once for each way through it.
  defp identity(term) when is_function(term) do
    case Function.info(term, :env) do
      {:env, []} ->
        term

      {:env, env} ->
        named = identity(env)

        if named === env,
          do: term,
          else: {named, Function.info(term, :new_uniq), Function.info(term, :new_index)}
    end
  end

  defp identity(%Nx.Tensor{data: %Nx.Defn.Expr{id: id}} = tensor), do: %{tensor | data: id}
  defp identity([head | tail]), do: [identity(head) | identity(tail)]

  defp identity(term) when is_tuple(term),
    do: term |> Tuple.to_list() |> identity() |> List.to_tuple()

  defp identity(%{} = term), do: :maps.map(fn _key, value -> identity(value) end, term)
  defp identity(term), do: term
end
