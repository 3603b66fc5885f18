defmodule Mlx.Doctor.Nif do
  @moduledoc false

  import Mlx.Doctor, only: [ok: 2, error: 3]

  # The loader tells the reason only in the log.
  @filter __MODULE__

  def loaded?, do: :erlang.module_loaded(Mlx.Native)

  def check do
    case load() do
      :ok ->
        ok("NIF", "loads, with #{length(Mlx.Native.op_table())} operations")

      {:error, reason} ->
        error("NIF", "can't be loaded: #{reason}", """
        see the errors above, if any, and run `mix deps.compile mlx --force`; devices, \
        computations and the BLAS are not checked\
        """)
    end
  end

  defp load do
    tag = make_ref()
    :ok = :logger.add_primary_filter(@filter, {&note/2, {self(), tag}})

    case Code.ensure_loaded(Mlx.Native) do
      {:module, _} -> :ok
      {:error, reason} -> {:error, reason(tag, reason)}
    end
  after
    :logger.remove_primary_filter(@filter)
  end

  @doc false
  def note(%{msg: message} = event, {pid, tag}) do
    text = text(message)

    if text =~ "Mlx.Native" do
      send(pid, {tag, text})
      :stop
    else
      event
    end
  end

  defp text({:string, text}), do: IO.chardata_to_string(text)
  defp text({:report, report}), do: inspect(report, limit: :infinity, printable_limit: :infinity)
  defp text({format, args}), do: format |> :io_lib.format(args) |> IO.chardata_to_string()

  defp reason(tag, reason) do
    receive do
      {^tag, text} -> text |> String.replace(~r/\s+/, " ") |> of_loader()
    after
      1000 -> inspect(reason)
    end
  end

  defp of_loader(text) do
    case Regex.run(~r/Failed to load NIF library:? '?(.*?)'?"/, text) do
      [_, reason] -> String.replace(reason, ": '", ": ")
      nil -> text
    end
  end
end
