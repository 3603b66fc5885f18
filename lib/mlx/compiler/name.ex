defmodule Mlx.Compiler.Name do
  @moduledoc false

  # What the cache knows a function by. Functions are equal if they are of one version of one
  # module and have captured the same; those captured by name are of whatever version there is.

  alias Mlx.Compiler.Cache

  # Going through what a model's function has captured takes a millisecond, so a process finds
  # the functions that it called last by their addresses.
  @recent __MODULE__
  @most 4

  def of(fun) do
    case Function.info(fun, :env) do
      {:env, []} -> {fun, version(fun)}
      {:env, _captured} -> recent(fun) || remember(fun, Cache.name(identity(fun)))
    end
  end

  defp recent(fun) do
    known = Process.get(@recent, [])
    Enum.find_value(known, fn {other, name} -> if :erts_debug.same(other, fun), do: name end)
  end

  defp remember(fun, name) do
    known = Process.get(@recent, [])
    Process.put(@recent, Enum.take([{fun, name} | known], @most))
    name
  end

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

  defp version(fun) do
    case Function.info(fun, :type) do
      {:type, :external} ->
        {:module, module} = Function.info(fun, :module)
        module.module_info(:md5)

      {:type, :local} ->
        nil
    end
  end
end
